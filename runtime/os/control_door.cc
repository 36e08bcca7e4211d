#include "runtime/os/control_door.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "runtime/os/directory.h"

namespace heaptier::os {
namespace {

constexpr char kBell[] = ".bell";
constexpr int kWaiting = 32;
// Room for "/PID.bell" behind a folder's path.
constexpr std::size_t kNameRoom = 20;
// Stale names looked at while a process makes its own.
constexpr unsigned kSweep = 128;

Errno last_error() {
  return {errno};
}

bool address_of(const char* path, sockaddr_un* out) {
  *out = {};
  out->sun_family = AF_UNIX;
  const std::size_t length = std::strlen(path);
  if (length >= sizeof out->sun_path) return false;
  std::memcpy(out->sun_path, path, length + 1);
  return true;
}

int make_socket() {
  return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

// 0: somebody listens there.
int try_connect(const char* path) {
  sockaddr_un to;
  if (!address_of(path, &to)) return ENAMETOOLONG;
  const int fd = make_socket();
  if (fd < 0) return EAGAIN;
  const bool reached = connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0;
  const int error = reached ? 0 : errno;
  ::close(fd);
  return error;
}

// Whether others may put something of theirs in the place of what lies in it.
bool parent_is_safe(const struct stat& parent, unsigned owner) {
  if (!S_ISDIR(parent.st_mode) || (parent.st_uid != 0 && parent.st_uid != owner)) return false;
  return (parent.st_mode & 022) == 0 || (parent.st_mode & S_ISVTX) != 0;
}

bool is_private(const struct stat& about, unsigned owner) {
  return S_ISDIR(about.st_mode) && about.st_uid == owner && (about.st_mode & 07777) == 0700;
}

}  // namespace

bool control_folder(unsigned n, const char* runtime_dir, unsigned owner, ControlFolder* out) {
  *out = {};
  if (n == 0) {
    const std::size_t length = std::strlen(runtime_dir);
    if (runtime_dir[0] != '/' || length + sizeof "/heaptier" + kNameRoom > kSocketPath) {
      return false;
    }
    std::memcpy(out->parent, runtime_dir, length + 1);
    std::memcpy(out->name, "heaptier", sizeof "heaptier");
    return true;
  }
  std::memcpy(out->parent, "/tmp", sizeof "/tmp");
  std::snprintf(out->name, sizeof out->name, "heaptier-%u", owner);
  return n < kControlFolders;
}

Errno open_control_folder(const ControlFolder& folder, unsigned owner, bool make, int* fd) {
  constexpr int kFolder = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  const int parent = ::open(folder.parent, kFolder);
  if (parent < 0) return last_error();
  struct stat about {};
  Errno e = fstat(parent, &about) == 0 ? kOk : last_error();
  if (e.ok() && !parent_is_safe(about, owner)) e = {EPERM};
  // Nobody else can have put another there since: see parent_is_safe.
  if (e.ok() && make && mkdirat(parent, folder.name, 0700) == 0) {
    (void)fchmodat(parent, folder.name, 0700, 0);  // whatever the umask says
  }
  if (e.ok()) {
    *fd = openat(parent, folder.name, kFolder);
    e = *fd >= 0 ? kOk : last_error();
    if (e.code == ELOOP || e.code == ENOTDIR) e = {EPERM};
  }
  ::close(parent);
  if (e.failed()) return e;
  if (fstat(*fd, &about) == 0 && is_private(about, owner)) return kOk;
  ::close(*fd);
  *fd = -1;
  return {EPERM};
}

void remove_stale_names(int folder, const char* path, unsigned most) {
  (void)each_name(folder, [&](const char* name) {
    if (most-- == 0) return false;
    char* end = nullptr;
    const long pid = std::strtol(name, &end, 10);
    if (pid <= 0 || (*end != '\0' && std::strcmp(end, kBell) != 0)) return true;
    if (kill(static_cast<pid_t>(pid), 0) == 0 || errno != ESRCH) return true;
    // There is no such process here, but there may be one in a container that shares the folder.
    char socket_path[kSocketPath];
    std::snprintf(socket_path, sizeof socket_path, "%s/%ld", path, pid);
    const int error = try_connect(socket_path);
    if (error == ECONNREFUSED || error == ENOENT) unlinkat(folder, name, 0);
    return true;
  });
}

Errno ControlDoor::open(const char* runtime_dir) {
  const unsigned owner = geteuid();
  Errno e{ENOENT};
  ControlFolder folder;
  for (unsigned n = 0; n < kControlFolders && e.failed(); ++n) {
    if (control_folder(n, runtime_dir, owner, &folder)) e = open_in(folder, owner);
  }
  return e;
}

Errno ControlDoor::open_in(const ControlFolder& where, unsigned owner) {
  int folder = -1;
  if (Errno e = open_control_folder(where, owner, true, &folder); e.failed()) return e;
  char path[kSocketPath];
  const int length = std::snprintf(path, sizeof path, "%s/%s", where.parent, where.name);
  Errno e = length > 0 && static_cast<std::size_t>(length) + kNameRoom < sizeof path
                ? kOk
                : Errno{ENAMETOOLONG};
  if (e.ok()) {
    remove_stale_names(folder, path, kSweep);
    e = listen_at(folder, path);
  }
  ::close(folder);
  return e;
}

Errno ControlDoor::listen_at(int folder, const char* path) {
  const int pid = getpid();
  char name[16];
  char bell[24];
  std::snprintf(name, sizeof name, "%d", pid);
  std::snprintf(bell, sizeof bell, "%d%s", pid, kBell);
  std::snprintf(path_, sizeof path_, "%s/%s", path, name);
  if (const int error = try_connect(path_); error == 0 || error == EAGAIN) return {EADDRINUSE};
  // Left by another process of this number, or by this one before it called exec.
  (void)unlinkat(folder, name, 0);
  (void)unlinkat(folder, bell, 0);

  struct stat about {};
  sockaddr_un address;
  Errno e = mkfifoat(folder, bell, 0600) == 0 ? kOk : last_error();
  if (e.ok()) {
    (void)fchmodat(folder, bell, 0600, 0);
    bell_ = openat(folder, bell, O_RDWR | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (bell_ < 0 || fstat(bell_, &about) != 0) e = last_error();
    bell_inode_ = about.st_ino;
  }
  if (e.ok() && (listener_ = make_socket()) < 0) e = last_error();
  // A socket's name has the mode that the socket has, so it is never open to others.
  if (e.ok() && fchmod(listener_, 0600) != 0) e = last_error();
  if (e.ok() && !address_of(path_, &address)) e = {ENAMETOOLONG};
  if (e.ok() &&
      (bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
       fchmodat(folder, name, 0600, 0) != 0 ||
       fstatat(folder, name, &about, AT_SYMLINK_NOFOLLOW) != 0 ||
       listen(listener_, kWaiting) != 0)) {
    e = last_error();
  }
  if (e.failed()) {
    (void)unlinkat(folder, name, 0);
    (void)unlinkat(folder, bell, 0);
    close();
    return e;
  }
  socket_inode_ = about.st_ino;
  named_by_.store(pid, std::memory_order_release);
  return kOk;
}

void ControlDoor::close() {
  remove_names();
  abandon();
}

void ControlDoor::abandon() {
  named_by_.store(0, std::memory_order_release);
  if (listener_ >= 0) ::close(listener_);
  if (bell_ >= 0) ::close(bell_);
  listener_ = -1;
  bell_ = -1;
}

void ControlDoor::remove_names() {
  int pid = getpid();
  if (!named_by_.compare_exchange_strong(pid, 0, std::memory_order_acq_rel)) return;
  char bell[kSocketPath + sizeof kBell];
  std::snprintf(bell, sizeof bell, "%s%s", path_, kBell);
  struct stat about {};
  // Another's by now, if a process in another namespace took the number for free.
  if (lstat(path_, &about) == 0 && about.st_ino == socket_inode_) (void)unlink(path_);
  if (lstat(bell, &about) == 0 && about.st_ino == bell_inode_) (void)unlink(bell);
}

void ControlDoor::forget() {
  named_by_.store(0, std::memory_order_relaxed);
  listener_ = -1;
  bell_ = -1;
}

bool ControlDoor::rung() {
  char bytes[64];
  bool any = false;
  // Whoever rings without end must not keep us.
  for (int i = 0; i < 4; ++i) {
    const ssize_t n = read(bell_, bytes, sizeof bytes);
    any = any || n > 0;
    if (n < static_cast<ssize_t>(sizeof bytes)) break;
  }
  return any;
}

int ControlDoor::accept() {
  const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) return errno == EWOULDBLOCK ? -EAGAIN : -errno;
  ucred peer{};
  socklen_t length = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
      (peer.uid == 0 || peer.uid == geteuid())) {
    return fd;
  }
  ::close(fd);
  return -EPERM;
}

long ControlDoor::receive(int client, char* out, std::size_t room) {
  const ssize_t n = recv(client, out, room, MSG_DONTWAIT | MSG_TRUNC);
  if (n >= 0) return n;
  return errno == EWOULDBLOCK || errno == EINTR ? -EAGAIN : -errno;
}

bool ControlDoor::send(int client, const char* text, std::size_t length) {
  const ssize_t n = ::send(client, text, length, MSG_DONTWAIT | MSG_NOSIGNAL);
  return n == static_cast<ssize_t>(length);
}

void ControlDoor::hang_up(int client) {
  ::close(client);
}

}  // namespace heaptier::os
