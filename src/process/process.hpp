// A started process: its end, and how to end it.
//
// Two kinds. What `spawn` has started stands under a guard (guard/guard.cpp), which is the child of ours: it passes
// signals on, has the same end, and has it when nothing of the process is left. And processes that
// somebody else has started, of which there is a pidfd.
//
// Owner: whoever started it; shared by pointer between a gateway and the loop. Any thread may call
// any method. Signals go through the pidfd, so a pid that the kernel has given to a stranger is
// never hit. SIGCHLD is never touched, waitpid(-1) never called.
#pragma once

#include <sys/types.h>

#include <mutex>
#include <optional>
#include <string>

#include "base/fd.hpp"
#include "base/wait.hpp"

namespace execnet::process {

struct ExitStatus {
  bool known = true;  // false when somebody else in this program collected the status
  int code = 0;       // exit code, when signal is 0
  int signal = 0;     // the signal that ended it

  // What waitpid(2) has said of it; a negative number: nothing.
  static ExitStatus of_waitpid(int status);

  // "exit status 3", "killed by SIGKILL", "exit status unknown"
  [[nodiscard]] std::string describe() const;

  friend bool operator==(const ExitStatus&, const ExitStatus&) = default;
};

class Process {
 public:
  // Without a socket to a guard, the pidfd is that of the process itself.
  Process(pid_t pid, base::Fd pidfd, base::Fd guard = base::Fd());
  ~Process() = default;  // does not wait: a guard ends all of it in a moment
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  // Readable when the process has ended, under a guard with all that it had started.
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }

  // The exit status if the process has ended; collects it. Does not wait.
  std::optional<ExitStatus> poll();
  // Waits for the end; none when the deadline passed first.
  std::optional<ExitStatus> wait(const base::Wait& wait);
  // Sends a signal; nothing happens if the process has ended.
  void signal(int number);
  // SIGKILL to the process and all that it has started; see tree.hpp. The end is still to be waited for.
  void kill_tree();
  // Has the guard do that. False when there is none.
  bool have_guard_kill();

 private:
  const pid_t pid_;
  const base::Fd pidfd_;
  const base::Fd guard_;  // its end tells the guard that nobody wants the process any more
  std::mutex mutex_;
  std::optional<ExitStatus> status_;  // guarded by mutex_
};

}  // namespace execnet::process
