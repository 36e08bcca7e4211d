// The control socket's side of the kernel: the folder where its name is, the socket, its clients.
// What is asked and answered there is runtime/control.h's.
//
// In the folder there are two names for a process: "PID", the socket (SOCK_SEQPACKET), and
// "PID.bell", a pipe. A client connects first and then writes a byte to the bell. So looking
// whether somebody is there costs one read of a pipe, a system call that the fault handlers need,
// too: a sandbox that the application enters later has to know of no other while nobody asks.
#pragma once

#include <atomic>
#include <cstddef>

#include "runtime/base/errno.h"

namespace heaptier::os {

inline constexpr std::size_t kSocketPath = 108;  // sockaddr_un's, with the closing NUL

struct ControlFolder {
  char parent[kSocketPath] = {};
  char name[24] = {};
};
// The folders where the names may be, best first: `heaptier` in the session's own
// (XDG_RUNTIME_DIR; empty or too long: not there), `heaptier-UID` in /tmp.
inline constexpr unsigned kControlFolders = 2;
// False: there is no n-th.
bool control_folder(unsigned n, const char* runtime_dir, unsigned owner, ControlFolder* out);
// Opens it, `make`: makes it first if it is not there. EPERM: it is a link, not a folder, not the
// owner's, open to others, or lies where others could put theirs in its place.
Errno open_control_folder(const ControlFolder& folder, unsigned owner, bool make, int* fd);

// Removes names of processes that are gone: nobody listens, and there is no such process. Looks at
// `most` names at most.
void remove_stale_names(int folder, const char* path, unsigned most);

// The socket of this process. One thread; is_named() from any.
class ControlDoor {
 public:
  constexpr ControlDoor() = default;

  // In the first folder that can be had. EADDRINUSE: a process of the same number, in another PID
  // namespace, is reached there.
  Errno open(const char* runtime_dir);
  bool is_open() const { return listener_ >= 0; }
  // The names are there.
  bool is_named() const { return named_by_.load(std::memory_order_acquire) != 0; }
  // Closes and removes the names. Nothing is removed by a child that was made behind our back.
  void close();
  // Closes, and leaves the names to whoever finds them stale: for a process in a sandbox that may
  // not even look at them.
  void abandon();
  // In a forked child: all of it is the parent's.
  void forget();

  // Somebody has rung since it was asked last.
  bool rung();
  // A client of the same user or root; -EAGAIN: nobody waits any more; another -errno: somebody was
  // turned away.
  int accept();
  // The length of the client's message, however long; 0: it went away; -EAGAIN: not yet.
  static long receive(int client, char* out, std::size_t room);
  static bool send(int client, const char* text, std::size_t length);
  static void hang_up(int client);

 private:
  void remove_names();
  Errno open_in(const ControlFolder& folder, unsigned owner);
  Errno listen_at(int folder, const char* path);

  int listener_ = -1;
  int bell_ = -1;
  // Of this process and named; 0: no names. Then path_ and what lies there do not change.
  std::atomic<int> named_by_{0};
  char path_[kSocketPath] = {};
  unsigned long socket_inode_ = 0;
  unsigned long bell_inode_ = 0;
};

}  // namespace heaptier::os
