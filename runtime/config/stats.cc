#include "runtime/config/stats.h"

namespace heaptier {
namespace {

constexpr StatInfo kTable[] = {
#define HEAPTIER_FLOW(name, from, to, Row, sums, help)                                \
  {#name,         StatKind::kFlow,     "pages", "pages", sums, help, PageState::from, \
   PageState::to, &StatsSnapshot::name},
#define HEAPTIER_COUNTER(name, group, unit, sums, help) \
  {#name,                                               \
   StatKind::kCounter,                                  \
   #group,                                              \
   #unit,                                               \
   sums,                                                \
   help,                                                \
   PageState::kUntouched,                               \
   PageState::kUntouched,                               \
   &StatsSnapshot::name},
#define HEAPTIER_GAUGE(name, group, unit, sums, help) \
  {#name,                                             \
   StatKind::kGauge,                                  \
   #group,                                            \
   #unit,                                             \
   sums,                                              \
   help,                                              \
   PageState::kUntouched,                             \
   PageState::kUntouched,                             \
   &StatsSnapshot::name},
#include "runtime/config/stats.def"
};

// A flow that the state machine forbids could never be counted.
static_assert([] {
  for (const StatInfo& stat : kTable) {
    if (stat.kind == StatKind::kFlow && !can_go(stat.from, stat.to)) return false;
  }
  return true;
}());

}  // namespace

std::span<const StatInfo> stats_table() {
  return kTable;
}

void Stats::read(StatsSnapshot* out) const {
#define HEAPTIER_FLOW(name, ...) out->name = name.get();
#define HEAPTIER_COUNTER(name, ...) out->name = name.get();
#include "runtime/config/stats.def"
}

std::int64_t StatsSnapshot::pages_by_flow(PageState s) const {
  // Modulo 2^64: right whatever the order of additions.
  std::uint64_t pages = 0;
  for (const StatInfo& stat : kTable) {
    if (stat.kind != StatKind::kFlow) continue;
    if (stat.to == s) pages += this->*stat.value;
    if (stat.from == s) pages -= this->*stat.value;
  }
  return static_cast<std::int64_t>(pages);
}

std::uint64_t StatsSnapshot::imbalance_pages() const {
  const struct {
    PageState state;
    std::uint64_t ledger;
  } kLedger[] = {
      {PageState::kResident, resident_pages}, {PageState::kClean, clean_pages},
      {PageState::kParked, parked_pages},     {PageState::kStored, stored_pages},
      {PageState::kFilled, filled_pages},     {PageState::kPoisoned, poisoned_pages},
  };
  static_assert(std::size(kLedger) == kPageStates - 1, "every state but untouched");
  std::uint64_t sum = 0;
  for (const auto& entry : kLedger) {
    const std::uint64_t flow = static_cast<std::uint64_t>(pages_by_flow(entry.state));
    const auto difference = static_cast<std::int64_t>(flow - entry.ledger);
    sum += difference < 0 ? 0 - static_cast<std::uint64_t>(difference)
                          : static_cast<std::uint64_t>(difference);
  }
  return sum;
}

bool takes_part(const char* sums, std::string_view word) {
  std::string_view rest = sums;
  while (!rest.empty()) {
    std::size_t end = rest.find(' ');
    if (end == std::string_view::npos) end = rest.size();
    if (rest.substr(0, end) == word) return true;
    rest.remove_prefix(end == rest.size() ? end : end + 1);
  }
  return false;
}

}  // namespace heaptier
