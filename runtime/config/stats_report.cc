// The two shapes of a snapshot: the exit report and the JSON.
#include "runtime/base/units.h"
#include "runtime/config/option_values.h"
#include "runtime/config/stats.h"
#include "runtime/config/text_writer.h"

namespace heaptier {
namespace {

enum class Row : std::uint8_t {
#define HEAPTIER_ROW(Id, label) k##Id,
#include "runtime/config/stats.def"
  kCount
};
constexpr const char* kRowLabels[] = {
#define HEAPTIER_ROW(Id, label) label,
#include "runtime/config/stats.def"
};
constexpr std::size_t kRows = static_cast<std::size_t>(Row::kCount);

// The columns of the page table. Untouched and poisoned pages hold nothing and have none.
constexpr PageState kColumns[] = {PageState::kResident, PageState::kClean, PageState::kParked,
                                  PageState::kStored, PageState::kFilled};
constexpr std::size_t kColumnCount = std::size(kColumns);
constexpr std::size_t kLabelWidth = 24;
constexpr std::size_t kCellWidth = 14;

struct PageTable {
  std::uint64_t cell[kRows][kColumnCount] = {};  // modulo 2^64: read as signed
  bool shown[kRows] = {};
};

PageTable tabulate(const StatsSnapshot& s) {
  PageTable table;
  const auto put = [&table](Row row, PageState from, PageState to, std::uint64_t pages) {
    const auto r = static_cast<std::size_t>(row);
    for (std::size_t c = 0; c < kColumnCount; ++c) {
      if (kColumns[c] == to) table.cell[r][c] += pages;
      if (kColumns[c] == from) table.cell[r][c] -= pages;
      table.shown[r] = table.shown[r] || table.cell[r][c] != 0;
    }
  };
#define HEAPTIER_FLOW(name, from, to, RowId, sums, help) \
  put(Row::k##RowId, PageState::from, PageState::to, s.name);
#include "runtime/config/stats.def"
  return table;
}

void put_right(TextWriter& out, std::size_t start, std::size_t column, char sign,
               std::uint64_t number) {
  char digits[24];
  TextWriter cell(digits, sizeof digits);
  if (sign != '\0') cell.put(sign);
  cell.put_number(number);
  cell.finish();
  const std::size_t end = kLabelWidth + (column + 1) * kCellWidth;
  out.pad_to(start, end > cell.length() ? end - cell.length() : 0);
  out.put(std::string_view(digits, cell.length()));
}

std::size_t begin_line(TextWriter& out, std::string_view label) {
  const std::size_t start = out.length();
  out.put("  ");
  out.put(label);
  return start;
}

// "  label       ": the lines under the page table.
void begin_fact(TextWriter& out, std::string_view label) {
  out.pad_to(begin_line(out, label), 12);
}

void put_mib(TextWriter& out, std::uint64_t bytes) {
  out.put_ratio(bytes, std::uint64_t{1} << 20, 1);
}

void put_seconds(TextWriter& out, std::uint64_t ns) {
  out.put_ratio(ns, 1000000000, 3);
  out.put(" s");
}

void put_micros(TextWriter& out, std::string_view label, std::uint64_t ns) {
  out.put(label);
  out.put(' ');
  out.put_ratio(ns, 1000, 1);
  out.put(" us");
}

void put_words(TextWriter& out, std::string_view name) {
  for (std::string_view prefix :
       {"pages_", "faults_", "store_", "evicted_", "errors_", "collapse_"}) {
    if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  }
  for (char c : name) out.put(c == '_' ? ' ' : c);
}

std::uint64_t sum_of(const StatsSnapshot& s, std::string_view word) {
  std::uint64_t sum = 0;
  for (const StatInfo& stat : stats_table()) {
    if (takes_part(stat.sums, word)) sum += s.*stat.value;
  }
  return sum;
}

// "N = zero A + hint B": the equation `left` = `right`, terms that are 0 left out.
void put_equation(TextWriter& out, const StatsSnapshot& s, std::string_view left,
                  std::string_view right) {
  const std::uint64_t total = sum_of(s, left);
  out.put_number(total);
  std::string_view sign = " = ";
  std::uint64_t sum = 0;
  for (const StatInfo& stat : stats_table()) {
    const std::uint64_t value = s.*stat.value;
    if (value == 0 || !takes_part(stat.sums, right)) continue;
    out.put(sign);
    put_words(out, stat.name);
    out.put(' ');
    out.put_number(value);
    sum += value;
    sign = " + ";
  }
  if (sum != total) {
    out.put(" (these add up to ");
    out.put_number(sum);
    out.put(")");
  }
}

void put_count(TextWriter& out, std::string_view label, std::uint64_t n) {
  if (n == 0) return;
  out.put(", ");
  out.put(label);
  out.put(' ');
  out.put_number(n);
}

void put_page_table(TextWriter& out, const StatsSnapshot& s) {
  const PageTable table = tabulate(s);
  std::size_t start = begin_line(out, "pages of 4 KiB");
  for (std::size_t c = 0; c < kColumnCount; ++c) {
    const std::string_view name = to_string(kColumns[c]);
    out.pad_to(start, kLabelWidth + (c + 1) * kCellWidth - name.size());
    out.put(name);
  }
  out.put('\n');
  for (std::size_t r = 0; r < kRows; ++r) {
    if (!table.shown[r]) continue;
    start = begin_line(out, kRowLabels[r]);
    for (std::size_t c = 0; c < kColumnCount; ++c) {
      const std::uint64_t value = table.cell[r][c];
      if (value == 0) continue;
      const bool less = static_cast<std::int64_t>(value) < 0;
      put_right(out, start, c, less ? '-' : '+', less ? 0 - value : value);
    }
    out.put('\n');
  }
  start = begin_line(out, "= now");
  std::uint64_t total = 0;
  for (std::size_t c = 0; c < kColumnCount; ++c) {
    const std::int64_t now = s.pages_by_flow(kColumns[c]);
    const auto value = static_cast<std::uint64_t>(now);
    total += value;
    put_right(out, start, c, now < 0 ? '-' : '\0', now < 0 ? 0 - value : value);
  }
  out.put("  = ");
  out.put_number(total);
  out.put('\n');
  if (s.imbalance_pages() != 0) {
    start = begin_line(out, "but the ledger says");
    const std::uint64_t ledger[] = {s.resident_pages, s.clean_pages, s.parked_pages, s.stored_pages,
                                    s.filled_pages};
    for (std::size_t c = 0; c < kColumnCount; ++c) put_right(out, start, c, '\0', ledger[c]);
    out.put('\n');
  }
}

void put_memory(TextWriter& out, const StatsSnapshot& s) {
  begin_fact(out, "heap");
  put_mib(out, s.heap_carved_bytes);
  out.put(" MiB in ");
  put_mib(out, s.heap_block_bytes);
  out.put(" of pageblocks; managed so far ");
  put_mib(out, s.heap_managed_bytes);
  out.put(", unmovable ");
  put_mib(out, s.heap_unmovable_bytes);
  put_count(out, "fallbacks", s.mobility_fallbacks);
  out.put('\n');

  const std::uint64_t home = (s.resident_pages + s.clean_pages) * kPageSize;
  const std::uint64_t park = s.parked_pages * kPageSize;
  begin_fact(out, "memory");
  put_mib(out, home + park + s.pool_held_bytes + s.metadata_bytes);
  out.put(" MiB = home ");
  put_mib(out, home);
  out.put(" + park ");
  put_mib(out, park);
  out.put(" + store ");
  put_mib(out, s.pool_held_bytes);
  out.put(" + heaptier ");
  put_mib(out, s.metadata_bytes);
  out.put("; budget ");
  put_mib(out, s.budget_bytes);
  if (s.stuck_bytes != 0) {
    out.put(" (");
    put_mib(out, s.stuck_bytes);
    out.put(" cannot leave)");
  }
  out.put(", for ");
  put_mib(out, home + park + (s.stored_pages + s.filled_pages) * kPageSize);
  out.put(" of content\n");
}

std::uint64_t packed_bytes(const StatsSnapshot& s) {
  return (s.stored_pages + s.clean_pages) * kPageSize;
}

void put_store(TextWriter& out, const StatsSnapshot& s) {
  begin_fact(out, "store");
  put_mib(out, packed_bytes(s));
  out.put(" MiB in ");
  put_mib(out, s.pool_payload_bytes);
  out.put(" (ratio ");
  out.put_ratio(packed_bytes(s), s.pool_payload_bytes, 2);
  out.put("); holds ");
  put_mib(out, s.pool_held_bytes);
  out.put(" of at most ");
  put_mib(out, s.pool_capacity_bytes);
  out.put('\n');
  begin_fact(out, "tried");
  put_equation(out, s, "=store_tries", "+store_tries");
  out.put('\n');
  begin_fact(out, "evicted");
  put_equation(out, s, "=evicted", "+evicted");
  put_count(out, "discard batches", s.discard_batches);
  put_count(out, "refused busy", s.refused_busy);
  put_count(out, "refused for pins", s.refused_pins);
  out.put('\n');
}

void put_faults(TextWriter& out, const StatsSnapshot& s) {
  begin_fact(out, "faults");
  put_equation(out, s, "=faults", "+faults");
  out.put('\n');
  begin_fact(out, "latency");
  put_micros(out, "p50", s.fault_p50_ns);
  put_micros(out, ", p99", s.fault_p99_ns);
  put_micros(out, ", p99.9", s.fault_p999_ns);
  put_micros(out, ", longest", s.fault_max_ns);
  out.put('\n');
  if (s.huge_parked + s.huge_unparked + s.collapse_tries != 0) {
    begin_fact(out, "huge");
    out.put("parked ");
    out.put_number(s.huge_parked);
    put_count(out, "unparked", s.huge_unparked);
    put_count(out, "split", s.huge_split);
    put_count(out, "collapsed", s.collapse_done);
    put_count(out, "not collapsed", s.collapse_failed);
    out.put('\n');
  }
}

// Only where there are several tiers of nodes.
void put_nodes(TextWriter& out, const StatsSnapshot& s) {
  if (s.nodes_promoted + s.nodes_demoted + s.nodes_balanced + s.nodes_drained +
          s.nodes_slow_pages ==
      0) {
    return;
  }
  begin_fact(out, "nodes");
  out.put("below the first tier ");
  put_mib(out, s.nodes_slow_pages * kPageSize);
  out.put("; pages promoted ");
  out.put_number(s.nodes_promoted);
  put_count(out, "demoted", s.nodes_demoted);
  put_count(out, "to another socket", s.nodes_balanced);
  put_count(out, "drained", s.nodes_drained);
  put_count(out, "huge pages whole", s.nodes_huge_moved);
  put_count(out, "split", s.nodes_huge_split);
  put_count(out, "target full", s.nodes_refused_full);
  put_count(out, "target without a free huge page", s.nodes_refused_whole);
  put_count(out, "pinned", s.nodes_refused_pinned);
  put_count(out, "shared", s.nodes_refused_shared);
  put_count(out, "failed", s.nodes_failed);
  put_count(out, "times a node was lost", s.nodes_lost);
  out.put('\n');
}

void put_interleaving(TextWriter& out, const StatsSnapshot& s) {
  if (s.interleave_weights.nodes().empty()) return;
  begin_fact(out, "interleave");
  out.put("weights ");
  config::write_weights(s.interleave_weights, out);
  out.put("; pages in place ");
  out.put_number(s.interleaved_pages);
  put_count(out, "moved there", s.nodes_interleaved);
  put_count(out, "not in place", s.misplaced_pages);
  out.put('\n');
}

// Only where a sampler tells what is hot, or did.
void put_sampling(TextWriter& out, const StatsSnapshot& s) {
  if (s.sampler_starts == 0) return;
  begin_fact(out, "sampler");
  out.put("reports ");
  out.put_number(s.sampler_reports);
  put_count(out, "lost", s.sampler_lost);
  if (s.sampler_look_ns != 0) {
    put_count(out, "regions", s.sampler_regions);
    out.put(", a look every ");
    put_seconds(out, s.sampler_look_ns);
    out.put("; CPU of the kernel's thread ");
    put_seconds(out, s.sampler_cpu_ns);
  } else {
    put_count(out, "throttled", s.sampler_throttled);
    put_count(out, "threads", s.sampler_threads);
    put_count(out, "left out", s.sampler_left_out);
    put_count(out, "a second of each", s.sampler_rate);
  }
  put_count(out, "times started", s.sampler_starts);
  put_count(out, "given up", s.sampler_fallbacks);
  out.put('\n');
}

void put_cpu(TextWriter& out, const StatsSnapshot& s) {
  const std::uint64_t total = s.handler_cpu_ns + s.background_cpu_ns + s.inline_ns;
  begin_fact(out, "CPU");
  put_seconds(out, total);
  out.put(" = handlers ");
  put_seconds(out, s.handler_cpu_ns);
  out.put(" + background ");
  put_seconds(out, s.background_cpu_ns);
  out.put(" + inline ");
  put_seconds(out, s.inline_ns);
  out.put('\n');
}

void put_errors(TextWriter& out, const StatsSnapshot& s) {
  std::string_view sign;
  for (const StatInfo& stat : stats_table()) {
    if (std::string_view(stat.group) != "errors" || s.*stat.value == 0) continue;
    if (sign.empty()) begin_fact(out, "errors");
    out.put(sign);
    sign = ", ";
    put_words(out, stat.name);
    out.put(' ');
    out.put_number(s.*stat.value);
  }
  if (!sign.empty()) out.put('\n');
}

}  // namespace

std::size_t write_text(char* out, std::size_t size, const StatsSnapshot& s) {
  TextWriter writer(out, size);
  writer.put("heaptier: process ");
  writer.put_number(s.pid);
  writer.put(", ");
  put_seconds(writer, s.lifetime_ns);
  writer.put(" = dormant ");
  put_seconds(writer, s.dormant_ns);
  writer.put(" + awake ");
  put_seconds(writer, s.awake_ns);
  put_count(writer, "forks", s.forks);
  writer.put('\n');
  // Before the first pageblock is registered there is nothing to tell but that.
  const bool managed = (s.blocks_registered | s.faults | s.pages_found) != 0;
  if (managed) put_page_table(writer, s);
  put_memory(writer, s);
  if (managed) {
    put_store(writer, s);
    put_faults(writer, s);
  }
  put_nodes(writer, s);
  put_interleaving(writer, s);
  put_sampling(writer, s);
  put_cpu(writer, s);
  put_errors(writer, s);
  return writer.finish();
}

std::size_t write_json(char* out, std::size_t size, const StatsSnapshot& s) {
  TextWriter writer(out, size);
  writer.put("{\"schema\": 1,\n \"pid\": ");
  writer.put_number(s.pid);
  for (const StatInfo& stat : stats_table()) {
    writer.put(",\n \"");
    writer.put(stat.name);
    writer.put("\": ");
    writer.put_number(s.*stat.value);
  }
  writer.put(",\n \"interleave_weights\": \"");
  config::write_weights(s.interleave_weights, writer);
  writer.put("\",\n \"imbalance_pages\": ");
  writer.put_number(s.imbalance_pages());
  writer.put(",\n \"store_ratio\": ");
  writer.put_ratio(packed_bytes(s), s.pool_payload_bytes, 3);
  writer.put("}\n");
  return writer.finish();
}

}  // namespace heaptier
