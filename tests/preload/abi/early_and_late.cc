// Before main, in other threads' endings, and after main.
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "tests/preload/abi/check.h"
#include "tests/preload/abi/early_library.h"

namespace {

char* from_preinit = nullptr;
char* from_constructor = nullptr;

void before_everything() {
  from_preinit = static_cast<char*>(std::malloc(300));
  std::strcpy(from_preinit, "preinit");
  void* other = std::calloc(10, 1000);
  other = std::realloc(other, 20000);
  std::free(other);
}

__attribute__((constructor(101))) void construct() {
  from_constructor = strdup("constructor");
}

__attribute__((destructor(101))) void destruct() {
  std::free(from_constructor);
  for (int i = 0; i < 1000; ++i) {
    char* p = static_cast<char*>(std::malloc(static_cast<std::size_t>(i) * 100));
    std::memset(p, 1, static_cast<std::size_t>(i) * 100);
    std::free(p);
  }
}

// Ends with the thread, after its body.
struct AtThreadEnd {
  std::vector<std::string> strings{100, std::string(100, 't')};
  ~AtThreadEnd() {
    std::vector<std::string> more(1000, std::string(50, 'u'));
    strings.insert(strings.end(), more.begin(), more.end());
  }
};
thread_local AtThreadEnd at_thread_end;

void* use_thread_local(void*) {
  at_thread_end.strings.push_back("x");
  return std::malloc(1000);
}

}  // namespace

__attribute__((section(".preinit_array"), used)) static void (*preinit)() = before_everything;

GROUP(before_main) {
  CHECK(std::strcmp(from_preinit, "preinit") == 0);
  CHECK(std::strcmp(from_constructor, "constructor") == 0);
  CHECK(early_library_is_whole());
  std::free(from_preinit);
  from_preinit = nullptr;
}

GROUP(thread_ends) {
  pthread_key_t key;
  pthread_key_create(&key, [](void* p) {
    std::free(p);
    void* more = std::malloc(300000);
    std::memset(more, 1, 300000);
    std::free(more);
  });
  for (int i = 0; i < 200; ++i) {
    pthread_t t;
    CHECK(pthread_create(&t, nullptr, use_thread_local, nullptr) == 0);
    void* p = nullptr;
    pthread_join(t, &p);
    std::free(p);
    std::thread([key] { pthread_setspecific(key, std::malloc(100)); }).join();
    CHECK(pthread_create(
              &t, nullptr,
              [](void*) -> void* {
                abi::opaque(at_thread_end.strings.size());
                pthread_exit(std::malloc(10));
              },
              nullptr) == 0);
    pthread_join(t, &p);
    std::free(p);
  }
  pthread_t cancelled;
  CHECK(pthread_create(
            &cancelled, nullptr,
            [](void*) -> void* {
              std::free(std::malloc(10));
              for (;;) pause();
            },
            nullptr) == 0);
  pthread_cancel(cancelled);
  void* result = nullptr;
  pthread_join(cancelled, &result);
  CHECK(result == PTHREAD_CANCELED);
}

GROUP(attributes_of_threads) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, 1 << 20);
  static std::atomic<int> ran{0};
  for (int i = 0; i < 20; ++i) {
    pthread_t t;
    CHECK(pthread_create(
              &t, &attributes,
              [](void* p) -> void* { return ++*static_cast<std::atomic<int>*>(p), p; }, &ran) == 0);
  }
  pthread_attr_destroy(&attributes);
  for (int i = 0; i < 1000 && ran < 20; ++i) usleep(10000);
  CHECK(ran == 20);
}

GROUP(loaded_later) {
  const char* path = std::getenv("ABI_LATE_LIBRARY");
  if (path == nullptr) throw abi::Skipped{"ABI_LATE_LIBRARY is not set"};
  for (int mode :
       {RTLD_NOW | RTLD_LOCAL, RTLD_LAZY | RTLD_GLOBAL, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND}) {
    void* library = dlopen(path, mode);
    CHECK(library != nullptr);
    if (library == nullptr) continue;
    auto* whole = reinterpret_cast<int (*)()>(dlsym(library, "early_library_is_whole"));
    auto* gives = reinterpret_cast<void* (*)(unsigned long)>(dlsym(library, "early_library_gives"));
    auto* local = reinterpret_cast<char* (*)()>(dlsym(library, "early_library_thread_local"));
    CHECK(whole() == 1);
    std::thread([&] {
      for (int i = 0; i < 20000; i += 100) local()[i] = 1;
    }).join();
    void* p = gives(1000);
    CHECK(p != nullptr);
    // Deep binding gives such a library libc's own malloc: its pointers are libc's to free.
    std::free(p);
    std::free(std::realloc(gives(2000), 4000));
    CHECK(dlsym(library, "no_such_symbol") == nullptr && dlerror() != nullptr);
    dlclose(library);
  }
}

ROLE(leaves_late) {
  std::atexit([] {
    std::string text(100000, 'x');
    abi::opaque(text.data());
    std::free(strdup(text.c_str()));
  });
  at_quick_exit([] { std::free(std::malloc(10)); });
  at_thread_end.strings.push_back("main");
  if (std::strcmp(argument, "quick") == 0) std::quick_exit(7);
  if (std::strcmp(argument, "thread") == 0) {
    std::thread([] { std::exit(7); }).join();
  }
  std::exit(7);
}

GROUP(after_main) {
  for (const char* how : {"exit", "quick", "thread"})
    CHECK(abi::run_role("leaves_late", how) == 7 << 8);
}
