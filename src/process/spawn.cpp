#include "process/spawn.hpp"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string_view>

#include "base/descriptor_limit.hpp"
#include "base/fd.hpp"
#include "base/syscall.hpp"
#include "base/wait.hpp"
#include "guard.hpp"
#include "process/close_on_exec.hpp"
#include "process/guard_program.hpp"
#include "process/guard_report.hpp"
#include "process/pidfd.hpp"

namespace execnet::process {
namespace {

constexpr int kLook = 100;  // milliseconds between two looks at a child that says nothing

using Environment = std::vector<std::pair<std::string, std::string>>;

// Everything the child needs, made beforehand: it may call nothing that allocates or locks.
struct Plan {
  int guard = -1;  // what it becomes; -1: it runs the same code as it is
  std::vector<char*> argv;
  std::vector<char*> envp;
  std::vector<std::pair<int, int>> fds;
  int first_free = 3;  // above every number that the guard is to have
  int report = -1;
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
  const Report failure{step, errno};
  static_cast<void>(!::write(report, &failure, sizeof failure));
  ::_exit(127);
}

void reset_signals() {
  struct sigaction action{};
  for (int number = 1; number < NSIG; ++number) {
    const bool inherited = number != SIGPIPE && number != SIGXFSZ;
    if (inherited && ::sigaction(number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) {
      continue;
    }
    action = {};
    action.sa_handler = SIG_DFL;
    ::sigaction(number, &action, nullptr);  // EINVAL for SIGKILL, SIGSTOP and the C library's own.
  }
}

[[noreturn]] void run_child(Plan& plan) {
  // Out of the way of the numbers to be set, and before anything that may fail after them: the
  // report first, so that it can be told, then all sources, since a number may be both a source
  // and somebody else's target. The copies are close-on-exec; dup2 clears that on the target.
  const int report = ::fcntl(plan.report, F_DUPFD_CLOEXEC, plan.first_free);
  const int guard_file = plan.guard >= 0 ? ::fcntl(plan.guard, F_DUPFD_CLOEXEC, plan.first_free) : -1;
  if (report < 0 || (plan.guard >= 0 && guard_file < 0)) {
    fail(plan.report, Step::kDescriptors);
  }
  for (auto& [source, target] : plan.fds) {
    source = ::fcntl(source, F_DUPFD_CLOEXEC, plan.first_free);
    if (source < 0) {
      fail(report, Step::kDescriptors);
    }
  }
  // Before the targets are set: it would mark those above 2 as well.
  close_all_on_exec(3);
  for (const auto& [source, target] : plan.fds) {
    if (::dup2(source, target) < 0) {
      fail(report, Step::kDescriptors);
    }
  }
  rlimit limit{};
  if (const std::size_t before = base::descriptor_limit_before();
      before != 0 && ::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = before;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  // All signals stay blocked, for the guard: it unblocks them in the program.
  reset_signals();
  if (guard_file < 0) {
    guard::run(static_cast<int>(plan.argv.size() - 1), plan.argv.data(), plan.envp.data(), false);
  }
  ::syscall(SYS_execveat, guard_file, "", plan.argv.data(), plan.envp.data(), AT_EMPTY_PATH);
  fail(report, Step::kGuard);
}

// vfork and not fork: the parent's page tables are not copied. Measured on two cores, to the exec
// of a small program: from a process with 500 MB resident 0.9 ms against 19 ms, from a small one
// 0.9 ms against 1.2 ms. The child borrows the memory and this thread's stack until it execs, so
// it stays in run_child, whose frames lie below this one. TSan turns vfork into fork (its checks
// could not follow two processes in one memory), ASan knows vfork: nothing above depends on which
// of both it is, since failures come home through a socket. So it may be fork, too, where a filter refuses vfork, and
// where the child is not to be another program.
[[gnu::noinline]] pid_t start_child(Plan& plan) {
  pid_t pid = plan.guard >= 0 ? ::vfork() : -1;
  if (pid < 0 && (plan.guard < 0 || errno == EPERM || errno == ENOSYS)) {
    pid = guard::fork_plainly();
  }
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

struct Outcome {
  Report report;
  pid_t program = 0;  // as it is known here, in whatever PID namespace it is
};

// One report, and who wrote it; none when nothing is there (size < 0) or nobody who could write (size 0).
ssize_t receive(int socket, Report& report, pid_t& writer) {
  iovec data{.iov_base = &report, .iov_len = sizeof report};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(ucred))];
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  const ssize_t size = ::recvmsg(socket, &message, MSG_DONTWAIT);
  const cmsghdr* header = size > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header != nullptr && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_CREDENTIALS) {
    ucred credentials{};
    std::memcpy(&credentials, CMSG_DATA(header), sizeof credentials);
    writer = credentials.pid;
  }
  return size;
}

bool has_ended(pid_t child) {
  siginfo_t info{};
  return ::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid != 0;
}

// What the child, or the guard that it has become, has to say; none when it ended without a word. Normally the socket
// ends then; but something that has forked past the C library may have a copy of the other end.
std::optional<Outcome> read_outcome(int socket, pid_t guard) {
  Outcome outcome{};
  for (;;) {
    pollfd entry{socket, POLLIN, 0};
    const int ready = base::check("poll", [&] { return ::poll(&entry, 1, kLook); });
    pid_t writer = 0;
    const ssize_t size = receive(socket, outcome.report, writer);
    if (size == sizeof outcome.report) {
      if (outcome.report.step != Step::kProgram) {
        return outcome;
      }
      outcome.program = writer;
    } else if (size == 0 || (ready == 0 && has_ended(guard))) {
      return std::nullopt;
    }
  }
}

// The child until it is known to run: whatever is thrown meanwhile, nothing of it is left.
class Newborn {
 public:
  Newborn(pid_t guard, base::Fd socket) : guard_(guard), socket_(std::move(socket)) {}
  ~Newborn() {
    if (socket_) {
      static_cast<void>(::send(socket_.get(), "", 1, MSG_DONTWAIT | MSG_NOSIGNAL));
      collect();
    }
  }
  Newborn(const Newborn&) = delete;
  Newborn& operator=(const Newborn&) = delete;

  std::optional<Outcome> outcome() { return read_outcome(socket_.get(), guard_); }
  // It has ended, or is about to. False if somebody else has collected it.
  bool collect() {
    socket_.reset();
    pid_t collected = 0;
    do {
      collected = ::waitpid(guard_, nullptr, 0);
    } while (collected < 0 && errno == EINTR);
    return collected == guard_;
  }
  std::shared_ptr<Process> process(pid_t program) {
    return std::make_shared<Process>(program, guard_, std::move(socket_));
  }

 private:
  const pid_t guard_;
  base::Fd socket_;
};

// Forks of the C library wait while a child is being started: a copy of this process that has the child's end of the
// socket would keep the end of the child from being seen. Starting several at once is no matter. A thread that starts a
// child does not wait for itself: ThreadSanitizer's vfork is a fork.
class NoForks {
 public:
  NoForks() {
    [[maybe_unused]] static const int registered = ::pthread_atfork(
        [] {
          if (!starts_here) {
            ::pthread_rwlock_wrlock(&lock);
          }
        },
        [] {
          if (!starts_here) {
            ::pthread_rwlock_unlock(&lock);
          }
        },
        [] { lock = kFresh; });
    ::pthread_rwlock_rdlock(&lock);
    starts_here = true;
  }
  ~NoForks() {
    starts_here = false;
    ::pthread_rwlock_unlock(&lock);
  }
  NoForks(const NoForks&) = delete;
  NoForks& operator=(const NoForks&) = delete;

 private:
  static constexpr pthread_rwlock_t kFresh = PTHREAD_RWLOCK_INITIALIZER;
  static inline pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
  static inline constinit thread_local bool starts_here = false;
};

// One attempt, with the guard as a program or as a copy of this process. Null with what has failed; null and nothing if
// the guard has ended without a word.
std::shared_ptr<Process> start(const SpawnRequest& request, const base::Fd& guard, std::optional<Report>& failed) {
  failed.reset();
  std::optional<NoForks> no_forks(std::in_place);
  auto [ours, theirs] = base::socket_pair();
  // The kernel is to add to what is written who wrote it, in the numbers of this process's namespace.
  constexpr int kOn = 1;
  base::check("setsockopt",
              [&, fd = ours.get()] { return ::setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &kOn, sizeof kOn); });
  const base::Fd myself = pidfd_open(::getpid());
  if (!myself && (errno == EMFILE || errno == ENFILE || errno == ENOMEM)) {
    base::throw_system_error(errno, "pidfd_open");
  }

  Plan plan;
  plan.guard = guard.get();
  plan.report = theirs.get();
  plan.fds = request.fds;
  for (const auto& [source, target] : request.fds) {
    plan.first_free = std::max(plan.first_free, target + 1);
  }
  const int guards_socket = plan.first_free++;
  plan.fds.emplace_back(theirs.get(), guards_socket);
  int coordinator = 0;
  if (myself) {
    coordinator = plan.first_free++;
    plan.fds.emplace_back(myself.get(), coordinator);
  }
  std::vector<std::string> argv = guard_arguments(guards_socket, coordinator, request.isolate, request.leniency,
                                                  program_candidates(request.argv[0], request.set_env), request.argv);
  plan.argv = pointers_to(argv);
  std::vector<std::string> environment = environment_with(request.set_env);
  plan.envp = pointers_to(environment);

  pid_t pid = -1;
  int error = 0;
  {
    const BlockedSignals blocked;
    pid = start_child(plan);
    error = errno;
  }
  if (pid < 0) {
    base::throw_system_error(error, "fork", request.argv[0]);
  }
  Newborn newborn(pid, std::move(ours));
  theirs.reset();
  no_forks.reset();
  const auto outcome = newborn.outcome();
  if (outcome && outcome->report.step == Step::kRunning && outcome->program > 0) {
    return newborn.process(outcome->program);
  }
  const bool collected = newborn.collect();
  if (!outcome && !collected) {
    base::throw_system_error(ECHILD, "waitpid",
                             request.argv[0] +
                                 " ended at once, and this program ignores SIGCHLD or collects children it did not "
                                 "start");
  }
  if (outcome) {
    failed = outcome->report;
  }
  return nullptr;
}

[[noreturn]] void throw_failure(const SpawnRequest& request, const std::optional<Report>& failed) {
  const std::string& program = request.argv[0];
  if (!failed || failed->step == Step::kRunning) {
    base::throw_system_error(ECHILD, "spawn", "the guard of " + program + " was killed");
  }
  // Longer than exec takes are the program's arguments.
  if (failed->step == Step::kExec || (failed->step == Step::kGuard && failed->error == E2BIG)) {
    throw ExecError(failed->error, std::generic_category(), "exec(" + program + ")");
  }
  if (failed->step == Step::kIsolate) {
    throw IsolationError(failed->error, std::generic_category(), "unshare");
  }
  switch (failed->step) {
    case Step::kDescriptors: base::throw_system_error(failed->error, "dup2", "descriptors for " + program);
    case Step::kEquip:
      base::throw_system_error(failed->error, "signalfd, pipe2, mmap, fcntl or sigprocmask",
                               "for the guard of " + program);
    case Step::kWatch: base::throw_system_error(failed->error, "poll or waitid", "in the guard of " + program);
    default: base::throw_system_error(failed->error, "fork", program);
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
  collect_abandoned();
  const base::Fd guard = make_guard_file();
  std::optional<Report> failed;
  if (guard) {
    if (auto process = start(request, guard, failed)) {
      return process;
    }
  }
  // Files in memory may not be executed here, or it cannot be told: the guard has hardly any arguments of its own.
  const bool cannot_be_guard = failed && failed->step == Step::kGuard && failed->error != E2BIG;
  if (!guard || cannot_be_guard) {
    if (auto process = start(request, base::Fd(), failed)) {
      return process;
    }
  }
  throw_failure(request, failed);
}

}  // namespace execnet::process
