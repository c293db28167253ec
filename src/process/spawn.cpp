#include "process/spawn.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string_view>

#include "base/fd.hpp"
#include "base/syscall.hpp"
#include "process/close_on_exec.hpp"
#include "process/pidfd.hpp"

namespace execnet::process {
namespace {

using Environment = std::vector<std::pair<std::string, std::string>>;

enum class Step : int { kDup, kExec };

// What the child sends home when it cannot become the program.
struct Failure {
  Step step;
  int error;
};

// Everything the child needs, made beforehand: it may call nothing that allocates or locks.
struct Plan {
  std::vector<const char*> candidates;
  std::vector<char*> argv;
  std::vector<char*> envp;
  std::vector<std::pair<int, int>> fds;
  int first_free = 3;  // above every number that the program is to have
  int report = -1;
  volatile bool child_shares_memory = false;
};

bool has_nul(const std::string& text) { return text.find('\0') != std::string::npos; }

std::vector<std::string> environment_with(const Environment& set_env) {
  std::vector<std::string> result;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::string_view name = text.substr(0, text.find('='));
    const bool replaced =
        std::any_of(set_env.begin(), set_env.end(), [&](const auto& set) { return set.first == name; });
    if (!replaced) {
      result.emplace_back(text);
    }
  }
  for (const auto& [name, value] : set_env) {
    if (name.empty() || name.find('=') != std::string::npos || has_nul(name) || has_nul(value)) {
      base::throw_system_error(EINVAL, "spawn", "environment variable " + name);
    }
    result.push_back(name + '=' + value);
  }
  return result;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> result;
  result.reserve(texts.size() + 1);
  for (std::string& text : texts) {
    result.push_back(text.data());
  }
  result.push_back(nullptr);
  return result;
}

// --- in the child, from here to exec: async-signal-safe calls only --------------------------------

[[noreturn]] void fail(int report, Step step) {
  const Failure failure{step, errno};
  static_cast<void>(!::write(report, &failure, sizeof failure));  // Less than PIPE_BUF: all or nothing.
  ::_exit(127);
}

void reset_signals() {
  struct sigaction action{};
  for (int number = 1; number < NSIG; ++number) {
    const bool inherited = number == SIGHUP || number == SIGINT || number == SIGQUIT;
    if (inherited && ::sigaction(number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) {
      continue;
    }
    action = {};
    action.sa_handler = SIG_DFL;
    ::sigaction(number, &action, nullptr);  // EINVAL for SIGKILL, SIGSTOP and the C library's own.
  }
}

[[noreturn]] void run_child(Plan& plan) {
  plan.child_shares_memory = true;

  // Out of the way of the numbers to be set, and before anything that may fail after them: the
  // report first, so that it can be told, then all sources, since a number may be both a source
  // and somebody else's target. The copies are close-on-exec; dup2 clears that on the target.
  const int report = ::fcntl(plan.report, F_DUPFD_CLOEXEC, plan.first_free);
  if (report < 0) {
    fail(plan.report, Step::kDup);
  }
  for (auto& [source, target] : plan.fds) {
    source = ::fcntl(source, F_DUPFD_CLOEXEC, plan.first_free);
    if (source < 0) {
      fail(report, Step::kDup);
    }
  }
  // Before the targets are set: it would mark those above 2 as well.
  close_all_on_exec(3);
  for (const auto& [source, target] : plan.fds) {
    if (::dup2(source, target) < 0) {
      fail(report, Step::kDup);
    }
  }

  // Dispositions before the mask: a signal that waits must not find a handler of the embedding
  // program, whose memory this still is.
  reset_signals();
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);

  // As execvp goes through PATH: what is not there or not reachable is passed over, and that a file
  // was there but not allowed is what to tell in the end. A file without a magic number is not
  // handed to /bin/sh as execvp would: for a wrong python= its error is the clearer one.
  bool denied = false;
  for (const char* candidate : plan.candidates) {
    ::execve(candidate, plan.argv.data(), plan.envp.data());
    denied = denied || errno == EACCES;
    if (errno != EACCES && errno != ENOENT && errno != ENOTDIR && errno != ESTALE && errno != ENODEV &&
        errno != ETIMEDOUT) {
      fail(report, Step::kExec);
    }
  }
  if (denied) {
    errno = EACCES;
  }
  fail(report, Step::kExec);
}

// vfork and not fork: the parent's page tables are not copied. Measured on two cores, to the exec
// of a small program: from a process with 500 MB resident 0.9 ms against 19 ms, from a small one
// 0.9 ms against 1.2 ms. The child borrows the memory and this thread's stack until it execs, so
// it stays in run_child, whose frames lie below this one. TSan turns vfork into fork (its checks
// could not follow two processes in one memory), ASan knows vfork: nothing above depends on which
// of both it is, since failures come home through a pipe.
[[gnu::noinline]] pid_t start_child(Plan& plan) {
  const pid_t pid = ::vfork();
  if (pid == 0) {
    run_child(plan);
  }
  return pid;
}

// --------------------------------------------------------------------------------------------------

// Blocks every signal while it lives. The child starts with this mask, so no handler of the embedding
// program runs in it, where it would do its work twice and on borrowed memory.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockedSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

 private:
  sigset_t before_;
};

// What the child reported; none when it has become the program.
std::optional<Failure> read_report(int fd, bool child_is_past_exec) {
  if (child_is_past_exec) {
    // Then the report is there or will never be. The end of file is not to be waited for: another
    // thread may have forked in between, and its child may keep the pipe open for as long as it lives.
    pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
    if (base::check("poll", [&] { return ::poll(&entry, 1, 0); }) == 0) {
      return std::nullopt;
    }
  }
  Failure failure{};
  const auto size = base::check("read", [&] { return ::read(fd, &failure, sizeof failure); }, "spawn report");
  return size == sizeof failure ? std::optional(failure) : std::nullopt;
}

void collect(pid_t pid) {
  while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
}

}  // namespace

std::vector<std::string> program_candidates(const std::string& program, const Environment& set_env) {
  if (program.find('/') != std::string::npos) {
    return {program};
  }
  const char* inherited = std::getenv("PATH");
  std::string path = inherited != nullptr ? inherited : "/bin:/usr/bin";
  for (const auto& [name, value] : set_env) {
    if (name == "PATH") {
      path = value;
    }
  }
  std::vector<std::string> result;
  for (std::size_t begin = 0; begin <= path.size();) {
    const std::size_t end = std::min(path.find(':', begin), path.size());
    const std::string directory = path.substr(begin, end - begin);
    result.push_back(directory.empty() ? program : directory + '/' + program);  // An empty one is the current.
    begin = end + 1;
  }
  return result;
}

std::shared_ptr<Process> spawn(const SpawnRequest& request) {
  if (request.argv.empty() || request.argv[0].empty() ||
      std::any_of(request.argv.begin(), request.argv.end(), has_nul)) {
    base::throw_system_error(EINVAL, "spawn", "arguments are empty or contain a NUL byte");
  }
  const std::vector<std::string> candidates = program_candidates(request.argv[0], request.set_env);
  std::vector<std::string> argv = request.argv;
  std::vector<std::string> environment = environment_with(request.set_env);
  auto [report_in, report_out] = base::make_pipe();

  Plan plan;
  for (const std::string& candidate : candidates) {
    plan.candidates.push_back(candidate.c_str());
  }
  plan.argv = pointers_to(argv);
  plan.envp = pointers_to(environment);
  plan.fds = request.fds;
  for (const auto& [source, target] : request.fds) {
    plan.first_free = std::max(plan.first_free, target + 1);
  }
  plan.report = report_out.get();

  pid_t pid = -1;
  int error = 0;
  {
    const BlockedSignals blocked;
    pid = start_child(plan);
    error = errno;
  }
  if (pid < 0) {
    base::throw_system_error(error, "vfork");
  }
  report_out.reset();
  // Before anything that may fail or wait: an uncollected child keeps its number.
  base::Fd pidfd = pidfd_open(pid);
  error = errno;
  if (const auto failure = read_report(report_in.get(), plan.child_shares_memory)) {
    collect(pid);
    if (failure->step == Step::kExec) {
      throw ExecError(failure->error, std::generic_category(), "exec(" + request.argv[0] + ")");
    }
    base::throw_system_error(failure->error, "dup2", "descriptors for " + request.argv[0]);
  }
  if (!pidfd) {
    if (error == ESRCH) {
      base::throw_system_error(error, "pidfd_open",
                               request.argv[0] +
                                   " ended at once, and this program ignores SIGCHLD or collects "
                                   "children it did not start");
    }
    ::kill(pid, SIGKILL);
    collect(pid);
    base::throw_system_error(error, "pidfd_open", error == ENOSYS ? "Linux 5.4 or later is needed" : "");
  }
  return std::make_shared<Process>(pid, std::move(pidfd));
}

}  // namespace execnet::process
