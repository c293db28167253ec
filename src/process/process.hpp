// A started process: its end, and how to end it.
//
// There are two kinds. A process that `spawn` has started has a guard (guard/guard.cpp), which is our child. The guard
// passes signals on. It ends with the same status, when nothing of the process is left. That costs one descriptor, a
// socket to the guard. The socket closes when the guard ends; if our end closes, the guard kills everything. The other
// kind is a process that somebody else has started. For that we have a pidfd.
//
// Owner: the FarEnd of a gateway, a fork server or a proxy's WorkerEnd, whichever started it. A guard that does not end
// in time belongs to collect_abandoned(). Any thread may call any method. Signals go to what is known to be our child,
// or through the pidfd, so a pid that the kernel has given to a stranger is never hit. SIGCHLD is never touched,
// waitpid(-1) never called.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "base/fork.hpp"
#include "base/wait.hpp"

namespace execnet::process {

struct ExitStatus {
  bool known = true;    // false when somebody else in this program collected the status
  int code = 0;         // exit code, when signal is 0
  int signal = 0;       // the signal that ended it
  int guard_error = 0;  // the errno for which its guard has ended it

  // What waitpid(2) has said of it; a negative number: nothing.
  static ExitStatus of_waitpid(int status);

  // "exit status 3", "killed by SIGKILL", "exit status unknown"
  [[nodiscard]] std::string describe() const;

  friend bool operator==(const ExitStatus&, const ExitStatus&) = default;
};

// What is not killed at once when a process ends, or whoever has started it does.
struct Leniency {
  std::chrono::milliseconds grace{0};  // for all of it when the starter has gone, on top of the moment that there is
  bool keeps_detached = false;         // what it has started in a session of its own is not killed at all
};

// What subprocess.Popen.returncode would be after an end that describe() has such a text of, whatever follows it: the
// exit code, or the negative number of a signal. None if it says neither.
std::optional<int> returncode_of(std::string_view described);

class Process {
 public:
  // Under a guard, which is process `guard`, at the other end of the socket.
  Process(pid_t pid, pid_t guard, base::Fd socket);
  // Not our child.
  Process(pid_t pid, base::Fd pidfd, bool keeps_detached);
  // Has the guard kill what is left, and collects it: that takes milliseconds. If it does not end within two seconds,
  // as when the kernel holds on to it, a later call of spawn() does that.
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  // The root of the tree of what it has started: its guard, or the process itself if there is none.
  [[nodiscard]] pid_t root_pid() const { return guard_ != 0 ? guard_ : pid_; }
  // Readable when the process has ended, under a guard with all that it had started.
  [[nodiscard]] int end_fd() const { return end_.get(); }
  // Of one without a guard: see Leniency.
  [[nodiscard]] bool keeps_detached() const { return keeps_detached_; }

  // The exit status if the process has ended; collects it. Does not wait.
  std::optional<ExitStatus> poll();
  // Waits for the end; none when the deadline passed first.
  std::optional<ExitStatus> wait(const base::Wait& wait);
  // Sends a signal; nothing happens if the process has ended, or if the program has closed our descriptor of it.
  void signal(int number);
  // SIGKILL to the process and all that it has started; see tree.hpp. The end is still to be waited for.
  void kill_tree();
  // Has the guard do that. False when there is none.
  bool have_guard_kill();

 private:
  std::optional<ExitStatus> collect();
  std::optional<ExitStatus> poll_pidfd();

  const base::MadeHere made_here_;
  const pid_t pid_;
  const pid_t guard_;   // 0: there is none
  const base::Fd end_;  // of the guard a socket, else a pidfd
  const bool keeps_detached_ = false;
  std::mutex mutex_;
  int guard_error_ = 0;               // as ExitStatus has it; guarded by mutex_
  std::optional<ExitStatus> status_;  // guarded by mutex_
};

// Collects the guards that had not ended when their Process was destroyed, and that have ended since. Any thread.
void collect_abandoned();

}  // namespace execnet::process
