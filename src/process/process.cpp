#include "process/process.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cerrno>
#include <span>
#include <utility>

#include "base/syscall.hpp"
#include "process/pidfd.hpp"
#include "process/tree.hpp"

namespace execnet::process {
namespace {

// sigabbrev_np would know them all, but only in C libraries younger than those we are built with.
const char* signal_name(int number) {
  switch (number) {
    case SIGHUP: return "SIGHUP";
    case SIGINT: return "SIGINT";
    case SIGQUIT: return "SIGQUIT";
    case SIGILL: return "SIGILL";
    case SIGTRAP: return "SIGTRAP";
    case SIGABRT: return "SIGABRT";
    case SIGBUS: return "SIGBUS";
    case SIGFPE: return "SIGFPE";
    case SIGKILL: return "SIGKILL";
    case SIGUSR1: return "SIGUSR1";
    case SIGSEGV: return "SIGSEGV";
    case SIGUSR2: return "SIGUSR2";
    case SIGPIPE: return "SIGPIPE";
    case SIGALRM: return "SIGALRM";
    case SIGTERM: return "SIGTERM";
    case SIGXCPU: return "SIGXCPU";
    case SIGXFSZ: return "SIGXFSZ";
    case SIGSYS: return "SIGSYS";
    default: return nullptr;
  }
}

}  // namespace

ExitStatus ExitStatus::of_waitpid(int status) {
  if (status < 0) {
    return {.known = false};
  }
  return WIFSIGNALED(status) ? ExitStatus{.signal = WTERMSIG(status)} : ExitStatus{.code = WEXITSTATUS(status)};
}

std::string ExitStatus::describe() const {
  if (!known) {
    return "exit status unknown";
  }
  if (signal == 0) {
    return "exit status " + std::to_string(code);
  }
  const char* name = signal_name(signal);
  return "killed by " + (name != nullptr ? std::string(name) : "signal " + std::to_string(signal));
}

Process::Process(pid_t pid, base::Fd pidfd, base::Fd guard)
    : pid_(pid), pidfd_(std::move(pidfd)), guard_(std::move(guard)) {}

std::optional<ExitStatus> Process::poll() {
  const std::lock_guard lock(mutex_);
  if (status_) {
    return status_;
  }
  siginfo_t info{};
  int result = 0;
  do {
    result = pidfd_waitid(pidfd_.get(), &info, WEXITED | WNOHANG);
  } while (result < 0 && errno == EINTR);
  if (result == 0 && info.si_pid != 0) {
    if (info.si_code == CLD_EXITED) {
      status_ = ExitStatus{.code = info.si_status};
    } else {
      status_ = ExitStatus{.signal = info.si_status};
    }
  } else if (result < 0 && errno == ECHILD) {
    // Not, or no longer, our child to collect: SIGCHLD is ignored, somebody else has collected it,
    // or this is a forked copy of the coordinator, and the process may be well and alive.
    if (pidfd_ended(pidfd_.get())) {
      status_ = ExitStatus{.known = false};
    }
  } else if (result < 0) {
    base::throw_system_error(errno, "waitid", "pid " + std::to_string(pid_));
  }
  return status_;
}

std::optional<ExitStatus> Process::wait(const base::Wait& wait) {
  pollfd entry{.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
  if (!base::poll_until(std::span(&entry, 1), wait)) {
    return std::nullopt;
  }
  return poll();
}

void Process::signal(int number) {
  if (pidfd_send_signal(pidfd_.get(), number) < 0 && errno != ESRCH) {
    base::throw_system_error(errno, "pidfd_send_signal",
                             "pid " + std::to_string(pid_) + ", signal " + std::to_string(number));
  }
}

void Process::kill_tree() {
  Process* self = this;
  kill_trees(std::span(&self, 1));
}

bool Process::have_guard_kill() {
  if (!guard_) {
    return false;
  }
  // One that somebody has stopped is woken first. A second byte finds the first one still there, or nobody.
  static_cast<void>(pidfd_send_signal(pidfd_.get(), SIGCONT));
  static_cast<void>(::send(guard_.get(), "", 1, MSG_DONTWAIT | MSG_NOSIGNAL));
  return true;
}

}  // namespace execnet::process
