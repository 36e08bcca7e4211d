// How bench/run_all talks to a measuring program: it starts two or more of them, each with another
// allocator preloaded, and lets them take their windows in turn, so that whatever else the machine
// does falls on all alike.
//
// The program prints one line when it is ready; then it answers every line on its standard input
// with exactly one line of key=value words on its standard output. End of input ends it. One thread
// uses a session.
#ifndef HEAPTIER_BENCH_HARNESS_SESSION_H_
#define HEAPTIER_BENCH_HARNESS_SESSION_H_

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

namespace heaptier::bench {

// The words of one command line; word 0 is the verb.
class Command {
 public:
  explicit Command(const std::string& line) {
    std::istringstream in(line);
    for (std::string word; in >> word;) words_.push_back(word);
  }

  const std::string& verb() const { return words_[0]; }
  bool empty() const { return words_.empty(); }

  // Word i, or `otherwise` when the line is shorter.
  std::string text(std::size_t i, const char* otherwise = "") const {
    return i < words_.size() ? words_[i] : otherwise;
  }
  std::uint64_t number(std::size_t i, std::uint64_t otherwise) const {
    return i < words_.size() ? std::strtoull(words_[i].c_str(), nullptr, 10) : otherwise;
  }

 private:
  std::vector<std::string> words_;
};

// One answer line, written at once when it goes out of scope.
class Reply {
 public:
  Reply() = default;
  Reply(const Reply&) = delete;
  Reply& operator=(const Reply&) = delete;
  ~Reply() {
    std::printf("%s\n", line_.c_str());
    std::fflush(stdout);
  }

  Reply& add(const char* key, double value) {
    char word[96];
    std::snprintf(word, sizeof word, "%.9g", value);
    return add(key, std::string(word));
  }
  Reply& add(const char* key, std::uint64_t value) { return add(key, std::to_string(value)); }
  Reply& add(const char* key, const std::string& value) {
    if (!line_.empty()) line_ += ' ';
    line_ += key;
    line_ += '=';
    line_ += value;
    return *this;
  }
  // A whole line that is not made of words: a JSON object.
  void raw(std::string line) { line_ = std::move(line); }

 private:
  std::string line_;
};

// Reads the next command. False at the end of the input.
inline bool next_command(std::string& line) {
  line.clear();
  for (int c; (c = std::getchar()) != EOF;) {
    if (c == '\n') return true;
    line += static_cast<char>(c);
  }
  return false;
}

}  // namespace heaptier::bench

#endif  // HEAPTIER_BENCH_HARNESS_SESSION_H_
