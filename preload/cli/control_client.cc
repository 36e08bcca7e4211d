#include "preload/cli/control_client.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "runtime/config/options.h"
#include "runtime/os/control_door.h"

namespace heaptier::cli {
namespace {

namespace fs = std::filesystem;

constexpr unsigned kStaleNames = 100000;

std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::string link_text(const std::string& path) {
  char text[256];
  const ssize_t n = readlink(path.c_str(), text, sizeof text);
  return n < 0 ? "" : std::string(text, static_cast<std::size_t>(n));
}

// The words behind a key ("NSpid:") of a process' status.
std::vector<std::string> status_words(const std::string& status, const std::string& key) {
  std::vector<std::string> words;
  const std::size_t at = status.find("\n" + key);
  if (at == std::string::npos) return words;
  std::istringstream line(
      status.substr(at + 1 + key.size(), status.find('\n', at + 1) - at - 1 - key.size()));
  for (std::string word; line >> word;) words.push_back(word);
  return words;
}

// "" when the process was started without it, or does not tell.
std::string start_variable(int pid, const std::string& name) {
  const std::string text = read_text("/proc/" + std::to_string(pid) + "/environ");
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\0', at), text.size());
    if (text.compare(at, name.size() + 1, name + "=") == 0) {
      return text.substr(at + name.size() + 1, end - at - name.size() - 1);
    }
    at = end + 1;
  }
  return "";
}

std::string own_runtime_dir() {
  const char* dir = std::getenv("XDG_RUNTIME_DIR");
  return dir == nullptr ? "" : dir;
}

int open_folder(const std::string& root, const std::string& runtime_dir, unsigned n,
                unsigned owner) {
  os::ControlFolder folder;
  if (!os::control_folder(n, runtime_dir.c_str(), owner, &folder)) return -1;
  const std::string parent = root + folder.parent;
  if (parent.size() >= sizeof folder.parent) return -1;
  std::memcpy(folder.parent, parent.c_str(), parent.size() + 1);
  int fd = -1;
  return os::open_control_folder(folder, owner, false, &fd).ok() ? fd : -1;
}

// The session folders that a process of this user may have been told of.
std::vector<std::string> runtime_dirs(unsigned owner, const std::string& of_process) {
  std::vector<std::string> dirs;
  for (const std::string& dir :
       {of_process, own_runtime_dir(), "/run/user/" + std::to_string(owner)}) {
    if (!dir.empty() && std::find(dirs.begin(), dirs.end(), dir) == dirs.end()) {
      dirs.push_back(dir);
    }
  }
  return dirs;
}

// Calls use(folder, runtime directory) for each that can be opened, until it answers true.
template <class Use>
bool each_folder(const std::string& root, const std::vector<std::string>& dirs, unsigned owner,
                 Use use) {
  const auto with = [&](const std::string& dir, unsigned n) {
    const int fd = open_folder(root, dir, n, owner);
    if (fd < 0) return false;
    const bool done = use(fd);
    close(fd);
    return done;
  };
  for (const std::string& dir : dirs) {
    if (with(dir, 0)) return true;
  }
  return with("", 1);
}

bool has_thread_named(int pid, const std::string& name) {
  std::error_code error;
  for (fs::directory_iterator it("/proc/" + std::to_string(pid) + "/task", error), end;
       !error && it != end; it.increment(error)) {
    if (read_text((it->path() / "comm").string()) == name + "\n") return true;
  }
  return false;
}

// "1234", and nothing else; 0: it is not.
int pid_of_name(const char* name) {
  char* end = nullptr;
  const long pid = std::strtol(name, &end, 10);
  return *name >= '1' && *name <= '9' && *end == '\0' && pid <= INT32_MAX ? static_cast<int>(pid)
                                                                          : 0;
}

void note_pids(int folder, std::set<int>* out) {
  const std::string path = link_text("/proc/self/fd/" + std::to_string(folder));
  if (!path.empty()) os::remove_stale_names(folder, path.c_str(), kStaleNames);
  const int copy = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* dir = copy < 0 ? nullptr : fdopendir(copy);
  if (dir == nullptr) {
    if (copy >= 0) close(copy);
    return;
  }
  while (const dirent* entry = readdir(dir)) {
    if (const int pid = pid_of_name(entry->d_name); pid != 0) out->insert(pid);
  }
  closedir(dir);
}

// For root: the users that have folders.
std::set<unsigned> users_with_folders() {
  std::set<unsigned> users{geteuid()};
  if (geteuid() != 0) return users;
  std::error_code error;
  const auto note = [&](const std::string& folder, const std::string& prefix) {
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
      const std::string name = it->path().filename().string();
      if (name.compare(0, prefix.size(), prefix) != 0) continue;
      const std::string number = name.substr(prefix.size());
      char* last = nullptr;
      const unsigned long user = std::strtoul(number.c_str(), &last, 10);
      if (!number.empty() && *last == '\0' && user <= UINT32_MAX) {
        users.insert(static_cast<unsigned>(user));
      }
    }
  };
  note("/run/user", "");
  note("/tmp", "heaptier-");
  return users;
}

}  // namespace

ProcessFacts look_at_process(int pid) {
  ProcessFacts facts;
  facts.pid = pid;
  const std::string proc = "/proc/" + std::to_string(pid) + "/";
  const std::string status = "\n" + read_text(proc + "status");
  const std::vector<std::string> group = status_words(status, "Tgid:");
  const std::vector<std::string> users = status_words(status, "Uid:");
  const std::vector<std::string> state = status_words(status, "State:");
  // The number of a thread is none of a process, and what has ended only waits for its parent.
  if (users.size() < 2 || group.empty() || group[0] != std::to_string(pid)) return facts;
  if (state.empty() || state[0] == "Z" || state[0] == "X") return facts;
  facts.exists = true;
  facts.owner = static_cast<unsigned>(std::strtoul(users[1].c_str(), nullptr, 10));
  facts.name = read_text(proc + "comm");
  if (facts.name.ends_with('\n')) facts.name.pop_back();
  return facts;
}

std::string why_unreachable(const ProcessFacts& process) {
  if (!process.exists) return "does not exist";
  if (geteuid() != 0 && process.owner != geteuid()) {
    return "belongs to another user (" + std::to_string(process.owner) + ")";
  }
  if (has_thread_named(process.pid, "heaptier")) {
    if (start_variable(process.pid, "HEAPTIER_CONTROL") == "off") {
      return "has its control socket off (HEAPTIER_CONTROL=off)";
    }
    return "is awake but has no control socket: inline fault mode, tiering ended, a sandbox, or no "
           "folder for it";
  }
  const std::string maps = read_text("/proc/" + std::to_string(process.pid) + "/maps");
  if (maps.empty()) return "does not let itself be looked at, and has no control socket";
  if (maps.find("libheaptier") == std::string::npos) return "is not under heaptier";
  return "is not awake: its heap has not passed its wake-up size (HEAPTIER_WAKE)";
}

namespace {

// A pipe of that user's and nothing else: root does not write into what somebody has put there, nor
// open a device. -1 also when nobody listens: then it is of a process that is gone.
int open_bell(int folder, const std::string& name, unsigned owner) {
  const int found = openat(folder, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (found < 0) return -1;
  struct stat about {};
  const bool ours = fstat(found, &about) == 0 && S_ISFIFO(about.st_mode) && about.st_uid == owner;
  const std::string path = "/proc/self/fd/" + std::to_string(found);
  const int bell = ours ? open(path.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC) : -1;
  close(found);
  return bell;
}

}  // namespace

Question::~Question() {
  if (fd_ >= 0) close(fd_);
}

bool Question::connect_in(int folder, const std::string& name, const ProcessFacts& process) {
  const int bell = open_bell(folder, name + ".bell", process.owner);
  if (bell < 0) return false;
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  const std::string path = "/proc/self/fd/" + std::to_string(folder) + "/" + name;
  std::memcpy(to.sun_path, path.c_str(), std::min(path.size(), sizeof to.sun_path - 1));
  fd_ = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  const timeval limit{10, 0};
  bool good = fd_ >= 0 && setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0 &&
              connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0;
  ucred peer{};
  socklen_t length = sizeof peer;
  good = good && getsockopt(fd_, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
         (peer.uid == process.owner || peer.uid == 0) && peer.pid == process.pid;
  if (good) (void)!write(bell, "!", 1);
  close(bell);
  if (!good && fd_ >= 0) {
    close(fd_);
    fd_ = -1;
  }
  return good;
}

bool Question::ask(const ProcessFacts& process, const std::string& request) {
  if (!process.exists || (geteuid() != 0 && process.owner != geteuid())) return false;
  const std::string pid = std::to_string(process.pid);
  const std::string proc = "/proc/" + pid;
  const std::vector<std::string> dirs =
      runtime_dirs(process.owner, start_variable(process.pid, "XDG_RUNTIME_DIR"));
  bool reached = each_folder("", dirs, process.owner,
                             [&](int folder) { return connect_in(folder, pid, process); });
  if (!reached && (link_text(proc + "/ns/mnt") != link_text("/proc/self/ns/mnt") ||
                   link_text(proc + "/root") != link_text("/proc/self/root"))) {
    // In a container: by its own root, and the number that it has there.
    const std::vector<std::string> numbers =
        status_words("\n" + read_text(proc + "/status"), "NSpid:");
    reached = each_folder(proc + "/root", dirs, process.owner, [&](int folder) {
      return connect_in(folder, numbers.empty() ? pid : numbers.back(), process);
    });
  }
  if (!reached) return false;
  return send(fd_, request.data(), request.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(request.size());
}

std::optional<std::string> Question::answer(std::chrono::milliseconds within) {
  pollfd one{fd_, POLLIN, 0};
  if (poll(&one, 1, static_cast<int>(within.count())) <= 0) return std::nullopt;
  std::string text(std::size_t{64} << 10, '\0');
  const ssize_t n = recv(fd_, text.data(), text.size(), MSG_DONTWAIT);
  if (n <= 0) return std::nullopt;
  text.resize(static_cast<std::size_t>(n));
  return text;
}

std::vector<int> find_controlled() {
  std::set<int> pids;
  for (const unsigned user : users_with_folders()) {
    (void)each_folder("", runtime_dirs(user, ""), user, [&](int folder) {
      note_pids(folder, &pids);
      return false;
    });
  }
  return {pids.begin(), pids.end()};
}

}  // namespace heaptier::cli
