// A started process: its pidfd, its end, and how to end it.
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
  Process(pid_t pid, base::Fd pidfd);
  ~Process() = default;  // does not wait: the group decides how a process ends
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  // Readable when the process has ended.
  [[nodiscard]] int pidfd() const { return pidfd_.get(); }

  // The exit status if the process has ended; collects it. Does not wait.
  std::optional<ExitStatus> poll();
  // Waits for the end; none when the deadline passed first.
  std::optional<ExitStatus> wait(const base::Wait& wait);
  // Sends a signal; nothing happens if the process has ended.
  void signal(int number);
  // SIGKILL to the process and to every descendant that /proc still shows as such; see tree.hpp.
  // The end is still to be waited for.
  void kill_tree();

 private:
  const pid_t pid_;
  const base::Fd pidfd_;
  std::mutex mutex_;
  std::optional<ExitStatus> status_;  // guarded by mutex_
};

}  // namespace execnet::process
