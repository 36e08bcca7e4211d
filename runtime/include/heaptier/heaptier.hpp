// heaptier for C++20: the functions of heaptier.h with spans, a heap that ends with its scope, and
// a std::pmr resource that draws from it. Header only.
//
// A program that links libheaptier (the CMake target and the pkg-config file say so by defining
// HEAPTIER_LINKED) calls it directly. Any other program finds it if it is preloaded, by dlsym, and
// works without it: then there are no tiers, memory is that of new, and what asks something of
// heaptier answers -ENOTSUP.
//
// Rules of threads and errors as in heaptier.h. The resource throws std::bad_alloc, nothing else
// throws anything.
#ifndef HEAPTIER_HEAPTIER_HPP_
#define HEAPTIER_HEAPTIER_HPP_

#include <heaptier/heaptier.h>
#ifndef HEAPTIER_LINKED
#include <dlfcn.h>
#endif

#include <cerrno>
#include <climits>
#include <cstddef>
#include <memory_resource>
#include <span>
#include <string_view>
#include <utility>

namespace heaptier {

namespace detail {

#ifdef HEAPTIER_LINKED
#define HEAPTIER_FIND(name) &::name
#else
#define HEAPTIER_FIND(name) reinterpret_cast<decltype(&::name)>(dlsym(RTLD_DEFAULT, #name))
#endif

// All there or all null.
struct Api {
  decltype(&::heaptier_state) state = HEAPTIER_FIND(heaptier_state);
  decltype(&::heaptier_wake) wake = HEAPTIER_FIND(heaptier_wake);
  decltype(&::heaptier_where) where = HEAPTIER_FIND(heaptier_where);
  decltype(&::heaptier_demote) demote = HEAPTIER_FIND(heaptier_demote);
  decltype(&::heaptier_park) park = HEAPTIER_FIND(heaptier_park);
  decltype(&::heaptier_fetch) fetch = HEAPTIER_FIND(heaptier_fetch);
  decltype(&::heaptier_advise) advise = HEAPTIER_FIND(heaptier_advise);
  decltype(&::heaptier_tiers) tiers = HEAPTIER_FIND(heaptier_tiers);
  decltype(&::heaptier_tier_name) tier_name = HEAPTIER_FIND(heaptier_tier_name);
  decltype(&::heaptier_move) move = HEAPTIER_FIND(heaptier_move);
  decltype(&::heaptier_move_lazy) move_lazy = HEAPTIER_FIND(heaptier_move_lazy);
  decltype(&::heaptier_nodes) nodes = HEAPTIER_FIND(heaptier_nodes);
  decltype(&::heaptier_heap_create) heap_create = HEAPTIER_FIND(heaptier_heap_create);
  decltype(&::heaptier_heap_destroy) heap_destroy = HEAPTIER_FIND(heaptier_heap_destroy);
  decltype(&::heaptier_heap_alloc) heap_alloc = HEAPTIER_FIND(heaptier_heap_alloc);
  decltype(&::heaptier_free) release = HEAPTIER_FIND(heaptier_free);

  bool complete() const noexcept {
    return state != nullptr && wake != nullptr && where != nullptr && demote != nullptr &&
           park != nullptr && fetch != nullptr && advise != nullptr && tiers != nullptr &&
           tier_name != nullptr && move != nullptr && move_lazy != nullptr && nodes != nullptr &&
           heap_create != nullptr && heap_destroy != nullptr && heap_alloc != nullptr &&
           release != nullptr;
  }
};
#undef HEAPTIER_FIND

// Null: no libheaptier in this process, or an older one.
inline const Api* api() noexcept {
  static const Api found;
  static const bool complete = found.complete();
  return complete ? &found : nullptr;
}

}  // namespace detail

// Whether libheaptier is in this process. It may stand aside all the same: see state().
inline bool present() noexcept {
  return detail::api() != nullptr;
}
// 1: awake; 0: dormant; -ENOTSUP: tiering is off, or there is no heaptier.
inline int state() noexcept {
  return present() ? detail::api()->state() : -ENOTSUP;
}
inline int wake() noexcept {
  return present() ? detail::api()->wake() : -ENOTSUP;
}

// Memory as the functions below take it: the bytes of any span.
using Bytes = std::span<const std::byte>;

template <class T, std::size_t N>
Bytes bytes_of(std::span<T, N> objects) noexcept {
  return std::as_bytes(objects);
}
template <class T>
Bytes bytes_of(const T& object) noexcept {
  return {reinterpret_cast<const std::byte*>(&object), sizeof object};
}

// Pages that a range touches: what where() and nodes() have to say.
inline std::size_t pages_spanned(Bytes memory) noexcept {
  constexpr std::size_t kPage = 4096;
  const auto at = reinterpret_cast<std::size_t>(memory.data()) % kPage;
  return memory.empty() ? 0 : (at + memory.size() + kPage - 1) / kPage;
}

// Tiers.
inline int tiers() noexcept {
  return present() ? detail::api()->tiers() : -ENOTSUP;
}
// The tier of that name ("dram", "cxl", "pmem", "zpool"), or -EINVAL, -ENOTSUP.
inline int tier_named(std::string_view name) noexcept {
  const int count = tiers();
  for (int tier = 0; tier < count; ++tier) {
    char text[16];
    const int n = detail::api()->tier_name(tier, text, sizeof text);
    if (n > 0 && name == std::string_view(text)) return tier;
  }
  return count < 0 ? count : -EINVAL;
}

// Where memory is. `places` and `nodes` need pages_spanned(memory) elements: -EINVAL with fewer.
// Return the number written.
inline int where(Bytes memory, std::span<unsigned char> places) noexcept {
  if (places.size() < pages_spanned(memory)) return -EINVAL;
  return present() ? detail::api()->where(memory.data(), memory.size(), places.data()) : -ENOTSUP;
}
inline int nodes(Bytes memory, std::span<int> nodes) noexcept {
  if (nodes.size() < pages_spanned(memory)) return -EINVAL;
  return present() ? detail::api()->nodes(memory.data(), memory.size(), nodes.data()) : -ENOTSUP;
}
// The tier of each page: heaptier_move without tiers. Spans of one length, or -EINVAL.
inline int where(std::span<void* const> pages, std::span<int> status) noexcept {
  if (pages.size() != status.size()) return -EINVAL;
  if (!present()) return -ENOTSUP;
  return detail::api()->move(pages.data(), nullptr, status.data(), pages.size(), 0);
}

// Moving. The memory's content does not change, so const memory moves, too.
inline int move(std::span<void* const> pages, std::span<const int> tiers, std::span<int> status,
                unsigned flags = 0) noexcept {
  if (pages.size() != tiers.size() || pages.size() != status.size()) return -EINVAL;
  // No tiers would be a question (see where).
  if (pages.empty()) return 0;
  if (!present()) return -ENOTSUP;
  return detail::api()->move(pages.data(), tiers.data(), status.data(), pages.size(), flags);
}
inline int move_lazy(Bytes memory, int tier) noexcept {
  if (!present()) return -ENOTSUP;
  return detail::api()->move_lazy(const_cast<std::byte*>(memory.data()), memory.size(), tier);
}
inline int demote(Bytes memory) noexcept {
  if (!present()) return -ENOTSUP;
  return detail::api()->demote(const_cast<std::byte*>(memory.data()), memory.size());
}
inline int park(Bytes memory) noexcept {
  if (!present()) return -ENOTSUP;
  return detail::api()->park(const_cast<std::byte*>(memory.data()), memory.size());
}
inline int fetch(Bytes memory) noexcept {
  if (!present()) return -ENOTSUP;
  return detail::api()->fetch(const_cast<std::byte*>(memory.data()), memory.size());
}
inline int advise(Bytes memory, heaptier_advice advice) noexcept {
  if (!present()) return -ENOTSUP;
  return detail::api()->advise(const_cast<std::byte*>(memory.data()), memory.size(), advice);
}

// Memory that is held by HEAPTIER_PIN as long as this lives.
class Pin {
 public:
  explicit Pin(Bytes memory) noexcept
      : memory_(advise(memory, HEAPTIER_PIN) == 0 ? memory : Bytes{}) {}
  ~Pin() {
    if (!memory_.empty()) (void)advise(memory_, HEAPTIER_UNPIN);
  }
  Pin(Pin&& other) noexcept : memory_(std::exchange(other.memory_, Bytes{})) {}
  Pin& operator=(Pin&& other) noexcept {
    std::swap(memory_, other.memory_);
    return *this;
  }
  // False: it is not heaptier's to hold.
  explicit operator bool() const noexcept { return !memory_.empty(); }

 private:
  Bytes memory_;
};

// A heap of one's own, given back at the end of its scope; what was allocated from it stays valid
// until it is freed.
class Heap {
 public:
  // flags: heaptier_heap_flags.
  explicit Heap(unsigned flags = HEAPTIER_HEAP_MOVABLE) noexcept
      : heap_(present() ? detail::api()->heap_create(flags) : nullptr) {}
  ~Heap() {
    if (heap_ != nullptr) detail::api()->heap_destroy(heap_);
  }
  Heap(Heap&& other) noexcept : heap_(std::exchange(other.heap_, nullptr)) {}
  Heap& operator=(Heap&& other) noexcept {
    std::swap(heap_, other.heap_);
    return *this;
  }

  // False: there is no heaptier, or its heaps are used up. Then allocate() gives nothing.
  explicit operator bool() const noexcept { return heap_ != nullptr; }
  // Null: out of memory, or no heap. align: a power of two.
  void* allocate(std::size_t bytes, std::size_t align = alignof(std::max_align_t)) noexcept {
    return heap_ != nullptr ? detail::api()->heap_alloc(heap_, bytes, align) : nullptr;
  }
  // Of what any Heap allocated.
  static void release(void* p) noexcept {
    if (p != nullptr) detail::api()->release(p);
  }

 private:
  heaptier_heap* heap_;
};

// Memory of a heap of one's own for std::pmr containers; that of new where no heap could be made.
// Outlives the containers, as every resource.
class memory_resource final : public std::pmr::memory_resource {
 public:
  explicit memory_resource(unsigned flags = HEAPTIER_HEAP_MOVABLE) noexcept : heap_(flags) {}
  memory_resource(const memory_resource&) = delete;
  memory_resource& operator=(const memory_resource&) = delete;

  // Whether memory comes from a heap of heaptier's.
  bool managed() const noexcept { return static_cast<bool>(heap_); }

 private:
  void* do_allocate(std::size_t bytes, std::size_t align) override {
    if (!heap_) return std::pmr::new_delete_resource()->allocate(bytes, align);
    void* p = heap_.allocate(bytes, align);
    // This throws std::bad_alloc, also where the program is built without exceptions.
    return p != nullptr ? p : std::pmr::null_memory_resource()->allocate(bytes, align);
  }
  void do_deallocate(void* p, std::size_t bytes, std::size_t align) override {
    if (!heap_) {
      std::pmr::new_delete_resource()->deallocate(p, bytes, align);
    } else {
      Heap::release(p);
    }
  }
  bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
    return this == &other;
  }

  Heap heap_;
};

}  // namespace heaptier

#endif  // HEAPTIER_HEAPTIER_HPP_
