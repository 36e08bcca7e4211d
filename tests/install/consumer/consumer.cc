// The same for C++: containers in a heap of one's own, and everything else that the header has.
// Built with the library, and with the header alone.
#include <cstdio>
#include <cstdlib>
#include <heaptier/heaptier.hpp>
#include <string>
#include <vector>

int main() {
  const bool without = std::getenv("WITHOUT_HEAPTIER") != nullptr;
  heaptier::memory_resource memory(HEAPTIER_HEAP_UNMOVABLE);
  if (!without && !memory.managed()) {
    std::fputs("no heap of its own\n", stderr);
    return 1;
  }
  std::pmr::vector<std::pmr::string> words(&memory);
  for (int i = 0; i < 1000; ++i) words.emplace_back("a word too long to live in the object itself");
  const heaptier::Bytes bytes = std::as_bytes(std::span(words));
  std::vector<unsigned char> places(heaptier::pages_spanned(bytes));
  std::vector<int> nodes(heaptier::pages_spanned(bytes));
  void* page = words.data();
  const int fast = 0;
  int status = 0;
  (void)heaptier::state();
  (void)heaptier::where(bytes, places);
  (void)heaptier::nodes(bytes, nodes);
  (void)heaptier::where(std::span<void* const>(&page, 1), std::span(&status, 1));
  (void)heaptier::move(std::span<void* const>(&page, 1), std::span(&fast, 1),
                       std::span(&status, 1));
  (void)heaptier::move_lazy(bytes, heaptier::tier_named("dram"));
  (void)heaptier::demote(bytes);
  (void)heaptier::park(bytes);
  (void)heaptier::fetch(bytes);
  const heaptier::Pin pin(bytes);
  for (const auto& word : words) {
    if (word.size() != 44) return 1;
  }
  return 0;
}
