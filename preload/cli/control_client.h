// The client's side of the control socket (runtime/control.h): finds the process' socket, makes
// sure whose it is, asks one question.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace heaptier::cli {

// A process as /proc shows it.
struct ProcessFacts {
  int pid = 0;
  bool exists = false;
  unsigned owner = 0;  // effective user id
  std::string name;
};
ProcessFacts look_at_process(int pid);

// Why a process cannot be asked, in words that follow "process N ". Looks at it more closely.
std::string why_unreachable(const ProcessFacts& process);

// One question under way, so that many processes can be asked at once.
class Question {
 public:
  Question() = default;
  Question(Question&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  Question& operator=(Question&&) = delete;
  ~Question();
  // False: nobody is reached there.
  bool ask(const ProcessFacts& process, const std::string& request);
  // The answer; nothing: none came within the time.
  std::optional<std::string> answer(std::chrono::milliseconds within);

 private:
  bool connect_in(int folder, const std::string& name, const ProcessFacts& process);
  int fd_ = -1;
};

// Processes that have names in the folders that this user may look into, in order; names of those
// that are gone are removed.
std::vector<int> find_controlled();

}  // namespace heaptier::cli
