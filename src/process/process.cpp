#include "process/process.hpp"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <exception>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "base/syscall.hpp"
#include "process/guard_report.hpp"
#include "process/pidfd.hpp"
#include "process/tree.hpp"

namespace execnet::process {
namespace {

constexpr std::chrono::seconds kKilledWithin{2};

struct Abandoned {
  std::mutex mutex;
  std::vector<pid_t> guards;  // that have not ended in time
};
// Lives for ever: the last of the processes may go at the very end of the program.
Abandoned& abandoned() {
  static auto* const all = new Abandoned;
  return *all;
}

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
    case SIGSTKFLT: return "SIGSTKFLT";
    case SIGVTALRM: return "SIGVTALRM";
    case SIGPROF: return "SIGPROF";
    case SIGIO: return "SIGIO";
    case SIGPWR: return "SIGPWR";
    case SIGSYS: return "SIGSYS";
    default: return nullptr;
  }
}

std::optional<int> number_at_begin(std::string_view text) {
  int number = 0;
  const auto error = std::from_chars(text.data(), text.data() + text.size(), number).ec;
  return error == std::errc() ? std::optional(number) : std::nullopt;
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
  if (guard_error != 0) {
    return "killed by its guard, which could not watch it any more: " + std::generic_category().message(guard_error);
  }
  if (signal == 0) {
    return "exit status " + std::to_string(code);
  }
  const char* name = signal_name(signal);
  return "killed by " + (name != nullptr ? std::string(name) : "signal " + std::to_string(signal));
}

std::optional<int> returncode_of(std::string_view described) {
  constexpr std::string_view kExit = "exit status ";
  constexpr std::string_view kKilled = "killed by ";
  constexpr std::string_view kSignal = "signal ";
  if (described.starts_with(kExit)) {
    return number_at_begin(described.substr(kExit.size()));
  }
  if (!described.starts_with(kKilled)) {
    return std::nullopt;
  }
  described.remove_prefix(kKilled.size());
  if (described.starts_with(kSignal)) {
    const auto number = number_at_begin(described.substr(kSignal.size()));
    return number ? std::optional(-*number) : std::nullopt;
  }
  const std::string_view name = described.substr(0, described.find(';'));
  for (int number = 1; number < NSIG; ++number) {
    if (const char* known = signal_name(number); known != nullptr && name == known) {
      return -number;
    }
  }
  return std::nullopt;
}

Process::Process(pid_t pid, pid_t guard, base::Fd socket) : pid_(pid), guard_(guard), end_(std::move(socket)) {}

Process::Process(pid_t pid, base::Fd pidfd, bool keeps_detached)
    : pid_(pid), guard_(0), end_(std::move(pidfd)), keeps_detached_(keeps_detached) {}

Process::~Process() {
  if (guard_ == 0 || status_ || made_here_.in_forked_copy()) {
    return;
  }
  try {
    have_guard_kill();
    if (!wait({.deadline = base::Clock::now() + kKilledWithin})) {
      const std::lock_guard lock(abandoned().mutex);
      abandoned().guards.push_back(guard_);
    }
  } catch (const std::exception&) {
    // Nothing can be waited for, or remembered: its guard ends it, and stays to be collected.
  }
}

// Of a guard whose end of the socket is closed. It is on its way out of the kernel, if it is not out, so that
// this waits for microseconds at most.
std::optional<ExitStatus> Process::collect() {
  int status = 0;
  pid_t collected = 0;
  do {
    collected = ::waitpid(guard_, &status, 0);
  } while (collected < 0 && errno == EINTR);
  ExitStatus result{.known = false};  // SIGCHLD is ignored, or somebody else has collected it
  if (collected == guard_) {
    result = ExitStatus::of_waitpid(status);
  }
  result.guard_error = guard_error_;
  return result;
}

// Who has started it collects it, but if that has ended, it may have become ours to collect.
std::optional<ExitStatus> Process::poll_pidfd() {
  siginfo_t info{};
  int result = 0;
  do {
    result = pidfd_waitid(end_.get(), &info, WEXITED | WNOHANG);
  } while (result < 0 && errno == EINTR);
  if (result == 0 && info.si_pid != 0) {
    return info.si_code == CLD_EXITED ? ExitStatus{.code = info.si_status} : ExitStatus{.signal = info.si_status};
  }
  return result < 0 && pidfd_ended(end_.get()) ? std::optional(ExitStatus{.known = false}) : std::nullopt;
}

std::optional<ExitStatus> Process::poll() {
  const std::lock_guard lock(mutex_);
  if (status_) {
    return status_;
  }
  if (guard_ == 0) {
    status_ = poll_pidfd();
    return status_;
  }
  Report report{};
  ssize_t size = 0;
  while ((size = ::recv(end_.get(), &report, sizeof report, MSG_DONTWAIT)) > 0 || (size < 0 && errno == EINTR)) {
    if (size == sizeof report && report.step == Step::kWatch && guard_error_ == 0) {
      guard_error_ = report.error;
    }
  }
  if (size == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
    // A forked copy of the coordinator sees that end, too, and leaves the process alone.
    status_ = made_here_.in_forked_copy() ? ExitStatus{.known = false} : collect();
  }
  return status_;
}

std::optional<ExitStatus> Process::wait(const base::Wait& wait) {
  for (;;) {
    pollfd entry{.fd = end_fd(), .events = POLLIN, .revents = 0};
    if (!base::poll_until(std::span(&entry, 1), wait)) {
      return std::nullopt;
    }
    if (const auto status = poll()) {
      return status;
    }
  }
}

void Process::signal(int number) {
  const auto send = [&] {
    if (guard_ == 0) {
      return pidfd_send_signal(end_.get(), number);
    }
    // As long as it is our child, collected or not, its number is nobody else's.
    const std::lock_guard lock(mutex_);
    siginfo_t info{};
    const bool ours = !status_ && ::waitid(P_PID, static_cast<id_t>(guard_), &info, WEXITED | WNOHANG | WNOWAIT) == 0;
    return ours ? ::kill(guard_, number) : 0;
  };
  // EBADF: the program has closed all descriptors. Then who has started the process ends, and everything with it.
  if (send() < 0 && errno != ESRCH && (guard_ != 0 || errno != EBADF)) {
    base::throw_system_error(errno, guard_ == 0 ? "pidfd_send_signal" : "kill",
                             "pid " + std::to_string(pid_) + ", signal " + std::to_string(number));
  }
}

void Process::kill_tree() {
  Process* self = this;
  kill_trees(std::span(&self, 1));
}

bool Process::have_guard_kill() {
  if (guard_ == 0) {
    return false;
  }
  // One that somebody has stopped is woken first. A second byte finds the first one still there, or nobody.
  try {
    signal(SIGCONT);
  } catch (const std::system_error&) {
    // a filter of system calls; it may run all the same
  }
  static_cast<void>(::send(end_.get(), "", 1, MSG_DONTWAIT | MSG_NOSIGNAL));
  return true;
}

void collect_abandoned() {
  const std::lock_guard lock(abandoned().mutex);
  std::erase_if(abandoned().guards, [](pid_t guard) { return ::waitpid(guard, nullptr, WNOHANG) != 0; });
}

}  // namespace execnet::process
