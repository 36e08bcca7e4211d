#include "runtime/heap_policy.h"

#include <algorithm>

#include "runtime/base/lines.h"

namespace heaptier {
namespace {

bool take_hex(std::string_view* text, std::uintptr_t* out) {
  *out = 0;
  std::size_t n = 0;
  for (; n < text->size() && n < 16; ++n) {
    const char c = (*text)[n];
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (digit < 0) break;
    *out = *out * 16 + static_cast<std::uintptr_t>(digit);
  }
  text->remove_prefix(n);
  return n > 0;
}

// The mapping of a line of /proc/self/maps: "7f10-7f20 rw-p 00000000 00:00 0 ". False: it is of a
// file, or no such line.
bool parse_mapping(std::string_view line, AddressRange* out) {
  std::uintptr_t end = 0;
  if (!take_hex(&line, &out->start) || !line.starts_with('-')) return false;
  line.remove_prefix(1);
  if (!take_hex(&line, &end) || end <= out->start || line.size() < sizeof " rw-p") return false;
  out->bytes = end - out->start;
  return line[4] == 'p' && line.find(" 00:00 0") != std::string_view::npos;
}

}  // namespace

bool bound_by_application(NodeOps& ops, std::uintptr_t at) {
  NodePolicy policy;
  return ops.policy_at(at, &policy).ok() && !says_no_place(policy) && !is_heap_policy(policy);
}

bool thread_has_policy(NodeOps& ops) {
  NodePolicy own;
  return ops.policy_of_this_thread(&own).ok() && !says_no_place(own);
}

NodePolicy HeapPolicy::wanted() const {
  if (!interleaved_.empty()) {
    const NodeSet nodes = open_.empty() ? interleaved_ : interleaved_ & open_;
    if (!nodes.empty()) return {mode_, kHeapPolicyFlags, nodes.bits()};
  }
  if (!open_.empty()) return {PolicyMode::kPreferredMany, kHeapPolicyFlags, open_.bits()};
  return {local_ ? PolicyMode::kLocal : PolicyMode::kDefault, 0, 0};
}

Errno HeapPolicy::apply(AddressRange heap, LoopHost* host) {
  constexpr unsigned kTogether = 256;
  unsigned lines = 0;
  const NodePolicy wanted = this->wanted();
  placed_ = placed_ || is_heap_policy(wanted);
  Errno first = kOk;
  const auto note = [&first](Errno e) {
    if (first.ok()) first = e;
  };
  // A mapping has one policy, so its first page answers for all of it.
  const Errno read = each_line(files_, "/proc/self/maps", [&](std::string_view line) {
    if (host != nullptr && ++lines % kTogether == 0) (void)host->between_steps();
    AddressRange mapping;
    if (!parse_mapping(line, &mapping)) return;
    const std::uintptr_t start = std::max(mapping.start, heap.start);
    const std::uintptr_t end = std::min(mapping.end(), heap.end());
    if (start >= end) return;
    NodePolicy policy;
    if (ops_.policy_at(start, &policy).failed() || policy == wanted) return;  // gone meanwhile
    const bool ours = placed_ && is_heap_policy(policy);
    if (!says_no_place(policy) && !ours) return;
    note(ops_.set_policy(start, end - start, wanted, false));
  });
  note(read);
  return first;
}

}  // namespace heaptier
