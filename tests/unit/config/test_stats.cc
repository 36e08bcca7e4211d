// The counters explain the ledger, the equations hold, and the reports say what the numbers are.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "runtime/base/units.h"
#include "runtime/config/stats.h"

namespace heaptier {
namespace {

constinit Stats g_constant_initialised;

std::string text_of(const StatsSnapshot& s) {
  std::vector<char> out(kStatsTextBytes);
  EXPECT_LT(write_text(out.data(), out.size(), s), out.size());
  return out.data();
}

nlohmann::json json_of(const StatsSnapshot& s) {
  std::vector<char> out(kStatsTextBytes);
  EXPECT_LT(write_json(out.data(), out.size(), s), out.size());
  return nlohmann::json::parse(out.data());
}

std::set<std::string> equations() {
  std::set<std::string> names;
  for (const StatInfo& stat : stats_table()) {
    std::istringstream words(stat.sums);
    for (std::string word; words >> word;) names.insert(word.substr(1));
  }
  return names;
}

std::uint64_t side(const StatsSnapshot& s, const std::string& word) {
  std::uint64_t sum = 0;
  for (const StatInfo& stat : stats_table()) {
    if (takes_part(stat.sums, word)) sum += s.*stat.value;
  }
  return sum;
}

// A history of single pages: each step takes one page along one flow of the table, as the engine
// would, and does the accounting that goes with it. The pages themselves are the ledger.
class History {
 public:
  explicit History(unsigned seed) : random_(seed), pages_(200, PageState::kUntouched) {
    snapshot_.lifetime_ns = 10;
    snapshot_.dormant_ns = 4;
    snapshot_.awake_ns = 6;
    snapshot_.blocks_registered = 1;
  }

  void step() {
    PageState& page = pages_[random_() % pages_.size()];
    std::vector<const StatInfo*> ways;
    for (const StatInfo& stat : stats_table()) {
      if (stat.kind == StatKind::kFlow && stat.from == page) ways.push_back(&stat);
    }
    const StatInfo& way = *ways[random_() % ways.size()];
    snapshot_.*way.value += 1;
    page = way.to;
    if (takes_part(way.sums, "=evicted"))
      bump({"evicted_background", "evicted_inline", "evicted_asked"});
    if (takes_part(way.sums, "+store_tries")) snapshot_.store_tries += 1;
    if (random_() % 5 == 0) {
      snapshot_.store_tries += 1;
      bump({"store_incompressible", "store_full", "store_raced"});
    }
    if (random_() % 3 == 0) {
      snapshot_.faults += 1;
      bump({"faults_zero", "faults_hint", "faults_fetch", "faults_stale"});
    }
    if (random_() % 50 == 0) {
      snapshot_.collapse_tries += 1;
      bump({"collapse_done", "collapse_failed"});
    }
  }

  const StatsSnapshot& finish() {
    std::map<PageState, std::uint64_t> ledger;
    for (PageState page : pages_) ++ledger[page];
    snapshot_.resident_pages = ledger[PageState::kResident];
    snapshot_.clean_pages = ledger[PageState::kClean];
    snapshot_.parked_pages = ledger[PageState::kParked];
    snapshot_.stored_pages = ledger[PageState::kStored];
    snapshot_.filled_pages = ledger[PageState::kFilled];
    snapshot_.poisoned_pages = ledger[PageState::kPoisoned];
    return snapshot_;
  }

 private:
  void bump(std::vector<std::string> names) {
    const std::string& name = names[random_() % names.size()];
    for (const StatInfo& stat : stats_table()) {
      if (name == stat.name) snapshot_.*stat.value += 1;
    }
  }
  std::mt19937 random_;
  std::vector<PageState> pages_;
  StatsSnapshot snapshot_;
};

TEST(StatsTable, NamesAreUniqueAndDescribed) {
  std::set<std::string> names;
  for (const StatInfo& stat : stats_table()) {
    EXPECT_TRUE(names.insert(stat.name).second) << stat.name;
    EXPECT_FALSE(std::string(stat.help).empty()) << stat.name;
    EXPECT_TRUE((std::set<std::string>{"pages", "bytes", "ns", "count"}).count(stat.unit))
        << stat.name;
  }
}

TEST(StatsTable, EveryLegalTransitionHasACounter) {
  for (int from = 0; from < kPageStates; ++from) {
    for (int to = 0; to < kPageStates; ++to) {
      const auto a = static_cast<PageState>(from);
      const auto b = static_cast<PageState>(to);
      bool counted = false;
      for (const StatInfo& stat : stats_table()) {
        counted |= stat.kind == StatKind::kFlow && stat.from == a && stat.to == b;
      }
      EXPECT_EQ(counted, can_go(a, b)) << to_string(a) << " -> " << to_string(b);
    }
  }
}

TEST(StatsTable, EveryEquationHasTwoSides) {
  for (const std::string& name : equations()) {
    int left = 0;
    int right = 0;
    for (const StatInfo& stat : stats_table()) {
      left += takes_part(stat.sums, "=" + name);
      right += takes_part(stat.sums, "+" + name);
    }
    EXPECT_GT(left, 0) << name;
    EXPECT_GT(right, 0) << name;
  }
  EXPECT_TRUE(takes_part("=evicted +store_tries", "+store_tries"));
  EXPECT_TRUE(takes_part("=evicted +store_tries", "=evicted"));
  EXPECT_FALSE(takes_part("=evicted +store_tries", "+store"));
  EXPECT_FALSE(takes_part("", "+store"));
}

TEST(Stats, CountersReachTheSnapshotUnderTheirName) {
  const auto stats = std::make_unique<Stats>();
  std::uint64_t n = 0;
#define HEAPTIER_FLOW(name, ...) stats->name.add(++n);
#define HEAPTIER_COUNTER(name, ...) stats->name.add(++n);
#include "runtime/config/stats.def"
  StatsSnapshot s;
  s.resident_pages = 12345;
  stats->read(&s);
  std::uint64_t seen = 0;
  for (const StatInfo& stat : stats_table()) {
    if (stat.kind != StatKind::kGauge) seen += s.*stat.value;
  }
  EXPECT_EQ(seen, n * (n + 1) / 2);
  EXPECT_EQ(s.pages_found, 1u);
  EXPECT_EQ(s.resident_pages, 12345u);
  EXPECT_EQ(g_constant_initialised.faults.get(), 0u);
}

// The whole numbers in a line, by the column that they end in.
std::map<std::size_t, std::int64_t> figures(const std::string& line) {
  std::map<std::size_t, std::int64_t> found;
  for (std::size_t at = 0; at < line.size();) {
    const std::size_t start = line.find_first_not_of(' ', at);
    if (start == std::string::npos) break;
    at = std::min(line.find(' ', start), line.size());
    const std::string word = line.substr(start, at - start);
    if (word.find_first_of("0123456789") != std::string::npos) found[at] = std::stoll(word);
  }
  return found;
}

TEST(Report, ColumnsAddUpOnRandomHistories) {
  for (unsigned seed = 1; seed <= 30; ++seed) {
    History history(seed);
    for (unsigned i = 0; i < 50 * seed; ++i) history.step();
    const StatsSnapshot& s = history.finish();
    EXPECT_EQ(s.imbalance_pages(), 0u);
    for (const std::string& name : equations()) {
      EXPECT_EQ(side(s, "=" + name), side(s, "+" + name)) << name;
    }

    // And so do the figures as printed, read back from the text by column.
    const std::string text = text_of(s);
    EXPECT_EQ(text.find("add up"), std::string::npos) << text;
    EXPECT_EQ(text.find("ledger"), std::string::npos) << text;
    std::map<std::size_t, std::int64_t> sums;  // by the column a figure ends in
    std::map<std::size_t, std::int64_t> now;
    std::istringstream lines(text);
    bool in_table = false;
    for (std::string line; std::getline(lines, line);) {
      if (line.find("pages of 4 KiB") != std::string::npos) {
        in_table = true;
        continue;
      }
      if (!in_table) continue;
      const bool last = line.find("= now") != std::string::npos;
      const std::string cells = last ? line.substr(0, line.rfind(" = ")) : line;
      for (const auto& [column, value] : figures(cells)) (last ? now : sums)[column] += value;
      if (last) break;
    }
    for (const auto& [column, value] : now) EXPECT_EQ(sums[column], value) << text;
    EXPECT_EQ(now.size(), 5u) << text;
    EXPECT_LE(std::count(text.begin(), text.end(), '\n'), 28) << text;
  }
}

TEST(Report, SaysSoWhenThePagesDoNotAddUp) {
  History history(5);
  for (int i = 0; i < 500; ++i) history.step();
  StatsSnapshot s = history.finish();
  s.stored_pages += 3;
  s.clean_pages -= 1;
  EXPECT_EQ(s.imbalance_pages(), 4u);
  EXPECT_NE(text_of(s).find("but the ledger says"), std::string::npos);
  s.faults += 1;
  EXPECT_NE(text_of(s).find("(these add up to "), std::string::npos);
  EXPECT_EQ(json_of(s)["imbalance_pages"], 4);
}

TEST(Report, DormantProcessIsFourLines) {
  StatsSnapshot s;
  s.pid = 42;
  s.lifetime_ns = s.dormant_ns = 1234567890;
  const std::string text = text_of(s);
  EXPECT_EQ(text.substr(0, text.find('\n')),
            "heaptier: process 42, 1.234 s = dormant 1.234 s + awake 0.000 s");
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 4) << text;
}

TEST(Report, ErrorsAreNamed) {
  StatsSnapshot s;
  EXPECT_EQ(text_of(s).find("errors"), std::string::npos);
  s.errors_move = 2;
  s.errors_scan = 1;
  EXPECT_NE(text_of(s).find("  errors    move 2, scan 1\n"), std::string::npos) << text_of(s);
}

TEST(Report, SaysWhatASamplerToldInItsWords) {
  StatsSnapshot s{};
  s.wakeups = 1;
  s.sampler_starts = 1;
  s.sampler_reports = 77;
  s.sampler_threads = 3;
  s.sampler_rate = 1250;
  s.sampler_left_out = 2;
  std::string text = text_of(s);
  EXPECT_NE(text.find("reports 77, threads 3, left out 2, a second of each 1250, times started 1"),
            std::string::npos)
      << text;
  s.sampler_threads = s.sampler_rate = s.sampler_left_out = 0;
  s.sampler_regions = 9;
  s.sampler_look_ns = 20'000'000;
  text = text_of(s);
  EXPECT_NE(text.find("reports 77, regions 9, a look every 0.020 s"), std::string::npos) << text;
}

TEST(Json, HasEveryNameWithItsValue) {
  StatsSnapshot s;
  std::uint64_t n = 1000;
  for (const StatInfo& stat : stats_table()) s.*stat.value = ++n;
  s.pid = 7;
  s.clean_pages = 10;
  s.stored_pages = 20;
  s.pool_payload_bytes = 10 * kPageSize;
  const nlohmann::json json = json_of(s);
  EXPECT_EQ(json["schema"], 1);
  EXPECT_EQ(json["pid"], 7);
  EXPECT_DOUBLE_EQ(json["store_ratio"].get<double>(), 3.0);
  for (const StatInfo& stat : stats_table()) {
    ASSERT_TRUE(json.contains(stat.name)) << stat.name;
    EXPECT_EQ(json[stat.name].get<std::uint64_t>(), s.*stat.value) << stat.name;
  }
  EXPECT_EQ(json["interleave_weights"], "");
  s.interleave_weights.of[0] = 26;
  s.interleave_weights.of[2] = 5;
  EXPECT_EQ(json_of(s)["interleave_weights"], "0=26,2=5");
  EXPECT_EQ(json.size(), stats_table().size() + 5);
}

TEST(Report, LargestNumbersFitTheBufferAndSmallBuffersAreCut) {
  StatsSnapshot s;
  for (const StatInfo& stat : stats_table()) s.*stat.value = UINT64_MAX;
  for (std::uint8_t& weight : s.interleave_weights.of) weight = NodeWeights::kMost;
  const std::string text = text_of(s);
  json_of(s);
  for (const auto write : {write_text, write_json}) {
    const std::size_t whole = write(nullptr, 0, s);
    for (std::size_t size : {std::size_t{1}, std::size_t{2}, std::size_t{100}, whole, whole + 1}) {
      std::vector<char> out(size + 1, '#');
      EXPECT_EQ(write(out.data(), size, s), whole);
      EXPECT_EQ(out[size], '#');
      EXPECT_EQ(std::string(out.data()).size(), std::min(size - 1, whole));
    }
  }
}

}  // namespace
}  // namespace heaptier
