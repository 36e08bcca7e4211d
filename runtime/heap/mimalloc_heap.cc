#include "runtime/heap/mimalloc_heap.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "runtime/heap/gates.h"
#include "runtime/heap/jemalloc_names.h"

namespace heaptier::mimalloc {
namespace {

constexpr std::size_t kSegment = std::size_t{32} << 20;
// mimalloc 2.x; 3.x keeps its names but not its ways with address space.
constexpr const char* kLibrary = "libmimalloc.so.2";

constinit OtherHeap table{};
struct More {
  void* (*zalloc)(std::size_t);
  // These, with offset 0, and not the simpler ones, which in 2.0.9 give 256 bytes at a multiple of
  // 128 when a multiple of 256 is wanted.
  void* (*zalloc_aligned_at)(std::size_t bytes, std::size_t align, std::size_t offset);
  void* (*malloc_aligned_at)(std::size_t bytes, std::size_t align, std::size_t offset);
  std::size_t (*usable_size)(const void*);
  void (*collect)(bool force);
};
constinit More more{};
constinit Space* the_space = nullptr;
constinit ContentSink* the_sink = nullptr;
constinit std::atomic<std::uintptr_t> code_start{0};
constinit std::atomic<std::size_t> code_bytes{0};
constinit std::atomic<bool> loading{false};

// The code of the object that holds an address, if that object is mimalloc.
struct Search {
  std::uintptr_t inside;
  std::uintptr_t start;
  std::size_t bytes;
};
int find_code(dl_phdr_info* info, std::size_t, void* out) {
  auto* search = static_cast<Search*>(out);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
    const std::uintptr_t start = info->dlpi_addr + segment.p_vaddr;
    if (search->inside - start >= segment.p_memsz) continue;
    if (std::strstr(info->dlpi_name, "libmimalloc") == nullptr) return 1;
    search->start = start;
    search->bytes = segment.p_memsz;
    return 1;
  }
  return 0;
}

void learn_code(std::uintptr_t inside) {
  Search search{inside, 0, 0};
  dl_iterate_phdr(find_code, &search);
  if (search.bytes == 0) return;
  code_start.store(search.start, std::memory_order_relaxed);
  code_bytes.store(search.bytes, std::memory_order_release);
}

template <class F>
bool look_up(void* library, F*& out, const char* name) {
  out = reinterpret_cast<F*>(dlsym(library, name));
  return out != nullptr;
}

}  // namespace

bool load(Space& space, ContentSink& sink) {
  the_space = &space;
  the_sink = &sink;
  // What jemalloc has of the ordinary zone so far lies below; should it ever need more, it closes
  // this gate again. Open before mimalloc's constructor takes its first memory.
  je_free(je_malloc(1));  // it takes its first pageblock now rather than for the dynamic linker
  const AddressRange zone = space.ordinary_zone();
  const std::uintptr_t above =
      std::max(zone.start, space.address_of(BlockIndex{space.block_limit()}));
  gates.free_bytes.store(0, std::memory_order_relaxed);
  // Nobody frees mimalloc's memory but mimalloc itself before load() is through.
  gates.other_owns.store(&table, std::memory_order_relaxed);
  gates.other_start.store(above, std::memory_order_relaxed);
  gates.other_bytes.store(zone.end() - above, std::memory_order_relaxed);
  loading.store(true);
  void* library = dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  const bool complete = library != nullptr && look_up(library, table.malloc, "mi_malloc") &&
                        look_up(library, table.calloc, "mi_calloc") &&
                        look_up(library, table.realloc, "mi_realloc") &&
                        look_up(library, table.free, "mi_free") &&
                        look_up(library, more.malloc_aligned_at, "mi_malloc_aligned_at") &&
                        look_up(library, more.zalloc, "mi_zalloc") &&
                        look_up(library, more.zalloc_aligned_at, "mi_zalloc_aligned_at") &&
                        look_up(library, more.usable_size, "mi_usable_size") &&
                        look_up(library, more.collect, "mi_collect");
  table.aligned_alloc = [](std::size_t align, std::size_t bytes) {
    return more.malloc_aligned_at(bytes, align, 0);
  };
  if (complete) learn_code(reinterpret_cast<std::uintptr_t>(table.malloc));
  loading.store(false);
  if (!complete || code_bytes.load() == 0) {
    gates.other_bytes.store(0, std::memory_order_relaxed);
    gates.free_start.store(zone.start, std::memory_order_relaxed);
    gates.free_bytes.store(zone.bytes, std::memory_order_relaxed);
    return false;
  }
  return true;
}

const OtherHeap& heap() {
  return table;
}

void* zalloc(std::size_t bytes, std::size_t align) {
  return align == 0 ? more.zalloc(bytes) : more.zalloc_aligned_at(bytes, align, 0);
}

std::size_t usable_size(const void* p) {
  return more.usable_size(p);
}

void collect() {
  more.collect(true);
}

bool is_caller(std::uintptr_t caller) {
  if (caller - code_start.load(std::memory_order_relaxed) <
      code_bytes.load(std::memory_order_acquire)) {
    return true;
  }
  if (!loading.load(std::memory_order_relaxed) || code_bytes.load() != 0) return false;
  // Its constructor calls while dlopen has not yet told us where it is.
  learn_code(caller);
  return code_bytes.load() != 0;
}

void* map(std::size_t bytes) {
  bytes = round_up(bytes, kPageSize);
  const std::size_t align = bytes >= kSegment ? kSegment : kPageSize;
  void* p = the_space->allocate(bytes, align, Mobility::kMovable, Owner::kMimalloc);
  if (p == nullptr) {
    gates.short_of_memory();
    return nullptr;
  }
  if (!the_space->in_ordinary_zone(reinterpret_cast<std::uintptr_t>(p))) {
    gates.other_bytes.store(0, std::memory_order_relaxed);
  }
  the_sink->carved(the_space->carved_bytes());
  return p;
}

void unmap(std::uintptr_t at, std::size_t bytes) {
  bytes = round_up(bytes, kPageSize);
  if (the_sink->drop(at, bytes)) {
    the_space->release(reinterpret_cast<void*>(at), bytes);  // NOLINT(performance-no-int-to-ptr)
  }
}

bool discard(std::uintptr_t at, std::size_t bytes) {
  return the_sink->drop(at, round_up(bytes, kPageSize));
}

}  // namespace heaptier::mimalloc
