#include "runtime/large_pages.h"

#include <cstdio>
#include <string_view>

#include "runtime/base/lines.h"
#include "runtime/base/units.h"
#include "runtime/base/words.h"
#include "runtime/os/advice.h"

namespace heaptier {
namespace {

constexpr const char* kFolder = "/sys/kernel/mm/transparent_hugepage";
constexpr const char* kEnabled = "/sys/kernel/mm/transparent_hugepage/enabled";
constexpr std::string_view kWholeBlock = "hugepages-2048kB";
// A page that somebody else has locked at the moment is passed over by the kernel.
constexpr int kPasses = 2;

// Calls size(name) for each size of pages that the kernel may give: "hugepages-64kB" and so on.
template <class F>
void each_size(FileTree& files, F&& size) {
  struct Sizes final : TextSink {
    explicit Sizes(F& f) : size(f) {}
    bool take(std::string_view name) override {
      if (name.starts_with("hugepages-") && name.size() < 40) size(name);
      return true;
    }
    F& size;
  } sizes(size);
  (void)files.list(kFolder, sizes);
}

// Of a file in the folder of one size.
struct Path {
  Path(std::string_view size, const char* file) {
    std::snprintf(text, sizeof text, "%s/%.*s/%s", kFolder, static_cast<int>(size.size()),
                  size.data(), file);
  }
  char text[128];
};

}  // namespace

bool LargePages::is_huge(std::uintptr_t block) {
  ScannedRun run{};
  std::size_t count = 0;
  std::uintptr_t next = 0;
  if (ops_.scan(block, kPageblockSize, &run, 1, &count, &next).failed()) return false;
  return count == 1 && run.huge && run.bytes == kPageblockSize;
}

bool LargePages::come_home_whole() {
  const Nanos now = ops_.now();
  if (looked_at_.v == 0 || now - looked_at_ >= seconds(1)) {
    whole_.store(made_at_first_touch(), std::memory_order_relaxed);
    looked_at_ = now;
  }
  return came_home_whole();
}

bool LargePages::made_at_first_touch() {
  bool made = false;
  (void)each_line(files_, kEnabled, [&](std::string_view line) {
    made = line.find("[always]") != std::string_view::npos ||
           (advised_ && line.find("[madvise]") != std::string_view::npos);
  });
  // PR_SET_THP_DISABLE; told since Linux 5.0.
  (void)each_line(files_, "/proc/self/status", [&](std::string_view line) {
    if (next_word(&line) == "THP_enabled:" && next_word(&line) == "0") made = false;
  });
  return made;
}

// False: it was built without, which is believed only where /sys is to be seen.
bool LargePages::kernel_has_them() {
  struct Names final : TextSink {
    bool take(std::string_view name) override {
      any = true;
      found = found || name == "transparent_hugepage";
      return !found;
    }
    bool any = false;
    bool found = false;
  } names;
  return files_.list("/sys/kernel/mm", names).failed() || !names.any || names.found;
}

// How many pages the kernel could not split since it was booted: of each size (Linux 6.10), or of 2
// MiB in all. False: it does not tell, or not of all sizes that may be there.
bool LargePages::read_refusals(std::uint64_t* n) {
  bool whole_blocks = false;
  *n = 0;
  each_size(files_, [&](std::string_view size) {
    (void)each_line(files_, Path(size, "stats/split_failed").text, [&](std::string_view line) {
      std::uint64_t of_size = 0;
      if (!next_number(&line, &of_size)) return;
      *n += of_size;
      whole_blocks = whole_blocks || size == kWholeBlock;
    });
  });
  if (whole_blocks) return true;
  if (other_sizes_in_use()) return false;
  bool told = false;
  (void)each_line(files_, "/proc/vmstat", [&](std::string_view line) {
    if (next_word(&line) == "thp_split_page_failed") told = next_number(&line, n);
  });
  return told;
}

// Multi-size THP, off unless an administrator has asked for it; there may be some left from when it
// was on.
bool LargePages::other_sizes_in_use() {
  bool in_use = false;
  each_size(files_, [&](std::string_view size) {
    if (size == kWholeBlock) return;
    (void)each_line(files_, Path(size, "enabled").text, [&](std::string_view line) {
      in_use = in_use || line.find("[never]") == std::string_view::npos;
    });
    (void)each_line(files_, Path(size, "stats/anon_fault_alloc").text, [&](std::string_view line) {
      std::uint64_t made = 0;
      in_use = in_use || (next_number(&line, &made) && made != 0);
    });
  });
  return in_use;
}

// The kernel splits a page of which only a part is to be cold. No page of 2 MiB lies wholly within
// either of two such ranges; smaller ones do.
bool LargePages::make_cold(std::uintptr_t block, bool singly) {
  const std::uintptr_t end = block + kPageblockSize;
  std::uintptr_t at = block;
  for (; singly && at < end - kPageSize; at += kPageSize) {
    if (ops_.advise(at, kPageSize, os::kAdviceCold).failed()) return false;
  }
  if (at < end - kPageSize && ops_.advise(at, end - kPageSize - at, os::kAdviceCold).failed()) {
    return false;
  }
  return ops_.advise(end - kPageSize, kPageSize, os::kAdviceCold).ok();
}

Errno LargePages::take_huge_apart(std::uintptr_t block) {
  if (!is_huge(block)) return {ENOTSUP};
  if (!make_cold(block, false)) return {EBUSY};
  return is_huge(block) ? Errno{EBUSY} : kOk;
}

Errno LargePages::take_apart(std::uintptr_t block) {
  if (const Errno e = take_huge_apart(block); e.code != ENOTSUP) return e;
  if (!kernel_has_them()) return kOk;
  std::uint64_t before = 0;
  // Whether larger pages in several mappings could be split only the kernel's counts tell.
  if (!read_refusals(&before)) return {ENOTSUP};
  const bool singly = other_sizes_in_use();
  for (int i = 0; i < kPasses; ++i) {
    if (!make_cold(block, singly)) return {EBUSY};
  }
  std::uint64_t after = 0;
  // Others' refusals are taken for ours: another time, then.
  return read_refusals(&after) && after == before ? kOk : Errno{EBUSY};
}

}  // namespace heaptier
