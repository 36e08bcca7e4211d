#include "runtime/os/kernel_nodes.h"

#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string_view>

#include "runtime/base/lines.h"
#include "runtime/os/kernel_files.h"
#include "runtime/os/raw_syscall.h"

namespace heaptier {
namespace {

static_assert(static_cast<int>(PolicyMode::kBind) == MPOL_BIND &&
              static_cast<int>(PolicyMode::kLocal) == MPOL_LOCAL);

// The nodes a kernel may be built for (CONFIG_NODES_SHIFT 10 is the most). get_mempolicy refuses
// masks that are shorter than its own.
constexpr std::size_t kMaskBits = 1024;
constexpr std::size_t kMaskWords = kMaskBits / 64;
// Modes share their word with flags, which begin here.
constexpr int kFlagBits = 0xe000;
// Watermarks move with memory hotplug, sysctls and for moments when a zone is boosted.
constexpr Nanos kReservesLast = seconds(5);

Errno last_error() {
  return {errno};
}

Errno get_policy(std::uintptr_t at, unsigned long flags, NodePolicy* out) {
  int mode = 0;
  std::uint64_t mask[kMaskWords] = {};
  if (os::raw_syscall(SYS_get_mempolicy, &mode, mask, kMaskBits + 1, at, flags) != 0) {
    return last_error();
  }
  out->mode = static_cast<PolicyMode>(mode & ~kFlagBits);
  out->flags = static_cast<std::uint16_t>(mode & kFlagBits);
  out->nodes = mask[0];
  return kOk;
}

}  // namespace

KernelNodes& kernel_node_ops() {
  static constinit KernelNodes ops;
  return ops;
}

NodeAbilities KernelNodes::find_abilities() {
  NodeAbilities found;
  const long page = os::raw_syscall(SYS_mmap, nullptr, kPageSize, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1);
  if (page == -1) return found;
  const auto at = static_cast<std::uintptr_t>(page);
  int status = kStatusUnwritten;
  found.move_pages = where(&at, &status, 1).ok();
  // A node that surely is: one that this thread may use.
  if (const NodeSet allowed = allowed_nodes(); allowed != NodeSet::all()) {
    const std::uint64_t one = allowed.bits() & (~allowed.bits() + 1);
    found.preferred_many =
        set_policy(at, kPageSize, {PolicyMode::kPreferredMany, 0, one}, false).ok();
    found.weighted_interleave =
        set_policy(at, kPageSize, {PolicyMode::kWeightedInterleave, 0, one}, false).ok();
  }
  os::raw_syscall(SYS_munmap, page, kPageSize);
  return found;
}

Errno KernelNodes::move_pages(const std::uintptr_t* pages, const int* nodes, int* status,
                              std::size_t count, std::size_t* unmoved) {
  *unmoved = 0;
  const long left = os::raw_syscall(SYS_move_pages, 0, count, pages, nodes, status, MPOL_MF_MOVE);
  if (left < 0) return last_error();
  *unmoved = static_cast<std::size_t>(left);
  return kOk;
}

Errno KernelNodes::where(const std::uintptr_t* pages, int* status, std::size_t count) {
  if (os::raw_syscall(SYS_move_pages, 0, count, pages, nullptr, status, 0) < 0) return last_error();
  return kOk;
}

Errno KernelNodes::set_policy(std::uintptr_t at, std::size_t bytes, const NodePolicy& policy,
                              bool move) {
  const unsigned mode = static_cast<unsigned>(policy.mode) | policy.flags;
  // The kernel takes one bit less than it is told.
  const bool named = policy.nodes != 0;
  if (os::raw_syscall(SYS_mbind, at, bytes, mode, named ? &policy.nodes : nullptr, named ? 65 : 0,
                      move ? MPOL_MF_MOVE : 0) != 0) {
    return last_error();
  }
  return kOk;
}

Errno KernelNodes::policy_at(std::uintptr_t at, NodePolicy* out) {
  return get_policy(at, MPOL_F_ADDR, out);
}

Errno KernelNodes::policy_of_this_thread(NodePolicy* out) {
  return get_policy(0, 0, out);
}

NodeSet KernelNodes::allowed_nodes() {
  std::uint64_t mask[kMaskWords] = {};
  if (os::raw_syscall(SYS_get_mempolicy, nullptr, mask, kMaskBits + 1, 0, MPOL_F_MEMS_ALLOWED) !=
      0) {
    return NodeSet::all();
  }
  return NodeSet::of_bits(mask[0]);
}

bool KernelNodes::reserves_are_old() {
  const std::int64_t read = reserves_read_.load(std::memory_order_acquire);
  return read == 0 || now() - Nanos{read} > kReservesLast;
}

Errno KernelNodes::read_reserves() {
  bool any = false;
  const Errno read = each_zone(kernel_files(), [&](const NodeZone& zone) {
    if (zone.node >= kMaxNodes) return;
    any = true;
    reserves_[zone.node][static_cast<std::size_t>(zone.name)].store(zone.reserve_pages,
                                                                    std::memory_order_relaxed);
  });
  if (read.failed() || !any) return {ENOTSUP};
  reserves_read_.store(now().v, std::memory_order_release);
  return kOk;
}

std::uint64_t KernelNodes::reserve_of(const NodeZone& zone) const {
  return reserves_[zone.node][static_cast<std::size_t>(zone.name)].load(std::memory_order_relaxed);
}

Errno KernelNodes::room(unsigned node, NodeRoom* out) {
  *out = {};
  if (node >= kMaxNodes) return {ENODEV};
  if (reserves_are_old()) {
    if (Errno e = read_reserves(); e.failed()) return e;
  }
  bool found = false;
  const Errno read = each_line(kernel_files(), "/proc/buddyinfo", [&](std::string_view line) {
    NodeZone zone;
    std::string_view free_blocks;
    if (!parse_zone(line, &zone, &free_blocks) || zone.node != node) return;
    found = true;
    zone.reserve_pages = reserve_of(zone);
    add_zone(zone, free_blocks, out);
  });
  if (read.failed()) return {ENOTSUP};
  return found ? kOk : Errno{ENODEV};
}

Errno KernelNodes::compact(unsigned node) {
  char path[64];
  std::snprintf(path, sizeof path, "/sys/devices/system/node/node%u/compact", node);
  const int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT ? Errno{ENODEV} : last_error();
  const bool written = write(fd, "1", 1) == 1;
  const Errno e = written ? kOk : last_error();
  close(fd);
  return e;
}

unsigned KernelNodes::node_here() {
  unsigned cpu = 0;
  unsigned node = 0;
  ErrnoKeeper keep;
  return getcpu(&cpu, &node) == 0 ? node : 0;
}

Nanos KernelNodes::now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return {std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec};
}

void KernelNodes::pause(Nanos length) {
  const timespec t{length.v / 1'000'000'000, length.v % 1'000'000'000};
  os::raw_syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &t, nullptr);
}

}  // namespace heaptier
