// What lies where: libc's own memory is unmovable, what it gives away is not, and heaps of one's
// own keep to themselves.
#include <dirent.h>
#include <dlfcn.h>
#include <malloc.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "runtime/include/heaptier/heaptier.h"
#include "tests/preload/abi/check.h"

namespace {

struct Api {
  int (*where)(const void*, size_t, unsigned char*);
  heaptier_heap* (*create)(unsigned);
  void* (*alloc)(heaptier_heap*, size_t, size_t);
  void (*release)(void*);
};

Api api() {
  Api a;
  a.where = reinterpret_cast<decltype(a.where)>(dlsym(RTLD_DEFAULT, "heaptier_where"));
  a.create = reinterpret_cast<decltype(a.create)>(dlsym(RTLD_DEFAULT, "heaptier_heap_create"));
  a.alloc = reinterpret_cast<decltype(a.alloc)>(dlsym(RTLD_DEFAULT, "heaptier_heap_alloc"));
  a.release = reinterpret_cast<decltype(a.release)>(dlsym(RTLD_DEFAULT, "heaptier_free"));
  return a;
}

bool managed(const void* p) {
  unsigned char place = HEAPTIER_UNMANAGED;
  const int n = api().where(p, 1, &place);
  return n == 1 && place != HEAPTIER_UNMANAGED;
}

void heaptier_only() {
  if (abi::heap_is("none")) throw abi::Skipped{"heaptier stands aside"};
}

}  // namespace

GROUP(ordinary_memory_is_managed) {
  heaptier_only();
  std::vector<void*> all;
  for (std::size_t n : {1uL, 100uL, 5000uL, 100000uL, 3uL << 20}) {
    all.push_back(std::malloc(n));
    CHECK(managed(all.back()));
    all.push_back(std::calloc(1, n));
    CHECK(managed(all.back()));
    all.push_back(aligned_alloc(64, n));
    CHECK(managed(all.back()));
  }
  for (void* p : all) std::free(p);
  std::string* s = new std::string(1000, 'x');
  CHECK(managed(s) && managed(s->data()));
  delete s;
}

GROUP(libc_keeps_its_own) {
  heaptier_only();
  FILE* f = std::fopen("/dev/null", "w");
  CHECK(f != nullptr && !managed(f));
  std::fclose(f);
  DIR* d = opendir("/");
  CHECK(d != nullptr && !managed(d));
  closedir(d);
}

GROUP(libc_gives_away) {
  heaptier_only();
  char* p = strdup(abi::opaque("hello"));
  CHECK(managed(p));
  std::free(p);
  p = strndup(abi::opaque("hello"), 3);
  CHECK(managed(p));
  std::free(p);
  p = realpath("/tmp", nullptr);
  CHECK(p != nullptr && managed(p));
  std::free(p);
  FILE* f = std::fopen("/proc/self/status", "r");
  char* line = nullptr;
  std::size_t room = 0;
  CHECK(getline(&line, &room, f) > 0 && managed(line));
  std::free(line);
  std::fclose(f);
}

GROUP(libc_memory_does_not_mix) {
  heaptier_only();
  // An object of libc's that is freed must not come back from the application's malloc.
  std::set<void*> files;
  std::vector<FILE*> open;
  for (int i = 0; i < 200; ++i) {
    open.push_back(std::fopen("/dev/null", "w"));
    files.insert(open.back());
  }
  const std::size_t size = malloc_usable_size(open[0]);
  for (FILE* f : open) std::fclose(f);
  std::vector<void*> ours;
  for (int i = 0; i < 1000; ++i) {
    ours.push_back(std::malloc(size));
    CHECK(files.count(ours.back()) == 0);
    CHECK(managed(ours.back()));
  }
  for (void* p : ours) std::free(p);
}

GROUP(heaps_of_ones_own) {
  const Api a = api();
  heaptier_heap* movable = a.create(HEAPTIER_HEAP_MOVABLE);
  heaptier_heap* unmovable = a.create(HEAPTIER_HEAP_UNMOVABLE);
  heaptier_heap* reclaimable = a.create(HEAPTIER_HEAP_RECLAIMABLE);
  heaptier_heap* user = a.create(HEAPTIER_HEAP_USER_ONLY);
  CHECK(movable != nullptr && unmovable != nullptr && reclaimable != nullptr && user != nullptr);
  CHECK(a.create(64) == nullptr);
  CHECK(a.create(HEAPTIER_HEAP_UNMOVABLE | HEAPTIER_HEAP_RECLAIMABLE) == nullptr);
  CHECK(a.alloc(nullptr, 10, 0) == nullptr);
  CHECK(a.alloc(movable, 10, 24) == nullptr);
  for (heaptier_heap* h : {movable, unmovable, reclaimable, user}) {
    std::set<void*> seen;
    for (std::size_t n : {0uL, 1uL, 8uL, 100uL, 5000uL, 70000uL, 5uL << 20}) {
      for (std::size_t align :
           {std::size_t{0}, std::size_t{64}, std::size_t{4096}, std::size_t{2} << 20}) {
        void* p = a.alloc(h, n, align);
        CHECK(p != nullptr && reinterpret_cast<std::uintptr_t>(p) % (align == 0 ? 16 : align) == 0);
        std::memset(p, 1, n);
        CHECK(malloc_usable_size(p) >= n);
        CHECK(seen.insert(p).second);
        if (!abi::heap_is("none")) CHECK(managed(p) == (h != unmovable));
      }
    }
    for (void* p : seen) a.release(p);
    if (abi::heap_is("none") || h == movable) continue;
    // What belongs to a heap stays there.
    std::vector<void*> ours;
    for (std::size_t n : {16uL, 100uL, 5000uL, 70000uL}) {
      for (int i = 0; i < 300; ++i) {
        ours.push_back(std::malloc(n));
        CHECK(seen.count(ours.back()) == 0);
      }
    }
    for (void* p : ours) std::free(p);
  }
  // free() and realloc() work on them, too.
  char* p = static_cast<char*>(a.alloc(user, 100, 0));
  std::memset(p, 9, 100);
  p = static_cast<char*>(std::realloc(p, 300000));
  CHECK(p != nullptr && p[0] == 9 && p[99] == 9);
  std::free(p);
}

ROLE(makes_heaps) {
  const Api a = api();
  int made = 0;
  while (made < 1000 && a.create(HEAPTIER_HEAP_MOVABLE) != nullptr) ++made;
  return made;
}

GROUP(sixty_four_heaps) {
  CHECK(abi::run_role("makes_heaps") == 64 << 8);
}
