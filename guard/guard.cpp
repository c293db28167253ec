// The guard is the parent of a program that a group has started. It also becomes the parent of the processes that the
// program starts and leaves behind. It sees to it that none of them lives longer than the program or the coordinator.
//
//   execnet-guard SOCKET COORDINATOR ISOLATION GRACE DETACHED COUNT CANDIDATE... ARGUMENT...
//
// SOCKET is the other end of the coordinator's (process/process.hpp). COORDINATOR is a pidfd of the coordinator, or 0
// where the kernel has none. ISOLATION is "none" or "pidns". GRACE are milliseconds. DETACHED is "kill", or "keep":
// then what is in a session of its own is not killed in the end (children.hpp). The COUNT candidates are files. The
// guard runs the first one that can be executed. That program gets the arguments, the environment and all other
// descriptors. It has the signal dispositions and the process group of this one, and an empty signal mask.
//
// Two guards stand above the program, one the parent of the other. If either is killed, the other one is still there:
// the kernel hands orphans to the nearest of them (PR_SET_CHILD_SUBREAPER).
//
//   coordinator --- outer guard --- inner guard --- program --- what it starts
//
// Each of them waits for one of these:
//   - Its child ends. What the child has left behind gets a moment, then SIGKILL.
//   - The coordinator ends, or becomes another program by exec; both close SOCKET. Everything gets a moment and GRACE,
//     then SIGKILL: code of the program that runs is interrupted after the moment, by the program itself.
//   - For the inner guard, the outer one ends: it was killed. Everything gets a moment, then SIGKILL.
//   - A byte comes on SOCKET. Everything gets SIGKILL now.
//   - A signal comes. The child gets it.
// A guard ends when nothing is left, the outer one with the exit status or the signal of the program. SOCKET closes
// with the last of the two.
//
// A guard that cannot watch guards nobody. If the kernel refuses it a system call (for a filter, see seccomp(2), or for
// want of memory), it kills all that it guards, says so on SOCKET, and ends. It never tries again for ever. For some
// calls there is a second one with the same effect, which it tries first: waitid(2) and waitpid(2); kill(2) and
// tkill(2); /proc and asking for each number (children.hpp); a pidfd of the coordinator and looking at the parent's
// number.
//
// What is not promised then: Without PR_SET_CHILD_SUBREAPER orphans go elsewhere, and only the program itself is
// killed. Without a pidfd, a forked copy of the coordinator may still hold its descriptors. Then the guard notices the
// coordinator's end up to kLook later. If both ways to kill, or both ways to wait, are refused, the program still dies
// with the inner guard (PR_SET_PDEATHSIG), but what it has started may not.
//
// The program stays in its process group, which gets the keyboard's signals and `kill -9 -GROUP`. The guards have to
// survive those, so they leave the group. The outer guard leaves it before the program starts: one guard is always
// outside. The inner guard leaves it afterwards. The group may have no number in its PID namespace, and then it could
// not come back to start the program in it.
// They leave the session as well. Else the end of a guard could make a group "orphaned", since its parent is of another
// group and the same session. If a process of such a group is stopped, the kernel sends SIGHUP to all of it, the
// coordinator included (setpgid(2)).
//
// With "pidns" the inner guard is the first process of a PID namespace (pid_namespaces(7)), with a /proc of its own.
// When it ends, the kernel ends everything in the namespace, even what forks faster than anybody can look. Without root
// the guard first makes a user namespace, in which the user is the same.
//
// One thread, no allocation, no lock, nothing but system calls: it cannot fail later on for want of anything. That also
// lets it run in a forked copy of the coordinator, where it cannot be a program of its own (process/guard_program.hpp).
#include "guard.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "children.hpp"
#include "process/guard_report.hpp"

namespace execnet::guard {
namespace {

using process::Report;
using process::Step;

// For a worker whose coordinator has gone, to end by itself and clean up; and for what a program
// leaves behind, such as multiprocessing's resource tracker, which cleans up after it.
constexpr int kMoment = 100;  // milliseconds

// Between two looks at who our parent is, where nothing tells of the coordinator's end.
constexpr int kLook = 100;  // milliseconds
// An error that never ends looks like an interruption without end. Only a debugger interrupts a guard.
constexpr int kMostInterruptions = 100;

constexpr unsigned kMostDescriptors = 1U << 20;  // as the kernel has it (fs.nr_open)

constexpr int kCloseRange = 436;  // not every header we are built with has the name

std::int64_t now() {  // milliseconds
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * std::int64_t{1000} + time.tv_nsec / 1'000'000;
}

// Whether the coordinator can know it.
bool report(int socket, Step step, int error = 0) {
  const Report report{step, error};
  return ::write(socket, &report, sizeof report) == sizeof report ||
         ::send(socket, &report, sizeof report, MSG_NOSIGNAL) == sizeof report;
}

// --- The program -------------------------------------------------------------------------------------

struct Program {
  char** candidates;
  int count;
  char** argv;
  char** envp;
};

// In a process of its own. As execvp goes through PATH: what is not there or not reachable is passed over, and that a
// file was there but not allowed is what to tell in the end. A file without a magic number is not handed to
// /bin/sh as execvp would: for a wrong python= its error is the clearer one. Returns the error.
int become(const Program& program) {
  bool denied = false;
  for (int i = 0; i < program.count; ++i) {
    ::execve(program.candidates[i], program.argv, program.envp);
    denied = denied || errno == EACCES;
    if (errno != EACCES && errno != ENOENT && errno != ENOTDIR && errno != ESTALE && errno != ENODEV &&
        errno != ETIMEDOUT) {
      return errno;
    }
  }
  return denied ? EACCES : errno;
}

struct Start {
  const Program& program;
  int socket;
  bool ignores_children;
  pid_t parent;
  Step failed = Step::kExec;
  int error = 0;
};

int run_program(void* argument) {
  auto& start = *static_cast<Start*>(argument);
  // A guard that is killed takes the program along; the rest is the other one's.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (start.ignores_children) {
    ::signal(SIGCHLD, SIG_IGN);
  }
  sigset_t none;
  ::sigemptyset(&none);
  start.failed = Step::kProcess;
  if (::getppid() != start.parent || !report(start.socket, Step::kProgram) ||
      ::sigprocmask(SIG_SETMASK, &none, nullptr) != 0) {
    start.error = errno;
    ::_exit(127);
  }
  start.failed = Step::kExec;
  start.error = become(start.program);
  ::_exit(127);
}

// -1 when it could not be started; that is reported then.
pid_t start(const Program& program, int socket, bool ignores_children) {
  // As vfork(2), which filters refuse more often: the child has our memory until it is the program.
  alignas(16) static char stack[16384];
  Start start{program, socket, ignores_children, ::getpid()};
  const pid_t pid = ::clone(run_program, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, &start);
  if (pid < 0) {
    report(socket, Step::kProcess, errno);
    return -1;
  }
  if (start.error != 0) {
    report(socket, start.failed, start.error);
    return -1;
  }
  ::setsid();
  return pid;
}

// /proc/PID/cmdline shows everybody the arguments, where there may be secrets: the program's are its own business.
void forget_arguments(int argc, char** argv) {
  char* end = argv[argc - 1] + std::strlen(argv[argc - 1]);  // the last NUL of all
  std::memset(argv[1], 0, static_cast<std::size_t>(end - argv[1]));
  *end = ' ';  // which tells the kernel that argv[0] is a title: the rest is not shown as so many blanks
}

// --- Isolation ---------------------------------------------------------------------------------------

bool write_file(const char* path, const char* text) {
  const int file = ::open(path, O_WRONLY | O_CLOEXEC);
  const bool written = file >= 0 && ::write(file, text, std::strlen(text)) > 0;
  ::close(file);
  return written;
}

// The next child is the first process of a namespace.
bool enter_namespace() {
  if (::unshare(CLONE_NEWPID) == 0) {
    return true;
  }
  const uid_t user = ::geteuid();
  const gid_t group = ::getegid();
  if (errno != EPERM || ::unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) {
    return false;
  }
  char users[32];
  char groups[32];
  std::snprintf(users, sizeof users, "%u %u 1", user, user);
  std::snprintf(groups, sizeof groups, "%u %u 1", group, group);
  return write_file("/proc/self/uid_map", users) && write_file("/proc/self/setgroups", "deny") &&
         write_file("/proc/self/gid_map", groups);
}

// For that child: /proc would show the processes outside, by the numbers they have there.
bool mount_proc() {
  return ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) == 0;
}

// --- Its end -----------------------------------------------------------------------------------------

// Ends as the program has ended. If nothing is known of its end, we have killed it.
[[noreturn]] void end_like(int status) {
  if (status == kStillRuns) {
    status = SIGKILL;
  }
  if (WIFEXITED(status)) {
    ::_exit(WEXITSTATUS(status));
  }
  const int number = WTERMSIG(status);
  const rlimit no_core{0, 0};  // there is one of the program's already
  ::setrlimit(RLIMIT_CORE, &no_core);
  ::prctl(PR_SET_DUMPABLE, 0);
  ::signal(number, SIG_DFL);
  sigset_t only;
  ::sigemptyset(&only);
  ::sigaddset(&only, number);
  ::kill(::getpid(), number);
  ::sigprocmask(SIG_UNBLOCK, &only, nullptr);
  ::_exit(128 + number);
}

// --- The watch ---------------------------------------------------------------------------------------

struct Watched {
  int socket;
  int coordinator;   // a pidfd; -1 if there is none
  int signals;       // a signalfd; it tells whoever reads it of his own
  int outer;         // a pipe that ends with the outer one; -1 for the outer one itself
  int grace;         // milliseconds
  pid_t parent = 0;  // the coordinator, if it is to be looked for now and then
};

// Waits until everything must be killed or nothing is left. Sets `status`, that of the child. Returns the errno if a
// system call failed and the guard cannot watch any more, else 0.
int watch(pid_t child, Children& children, const Watched& watched, const int& status) {
  enum { kSocket, kCoordinator, kOuter, kSignals, kCount };
  pollfd entries[kCount] = {{watched.socket, POLLIN, 0},
                            {watched.coordinator, POLLIN, 0},
                            {watched.outer, POLLIN, 0},
                            {watched.signals, POLLIN, 0}};
  std::int64_t deadline = INT64_MAX;
  const auto end_within = [&](int milliseconds) {
    if (const std::int64_t end = now() + milliseconds; end < deadline) {
      deadline = end;
    }
  };
  int interruptions = 0;
  for (;;) {
    const bool ending = deadline != INT64_MAX;
    const std::int64_t left = ending ? deadline - now() : watched.parent != 0 ? kLook : -1;
    if (ending && left <= 0) {
      return 0;
    }
    const int count = ::poll(entries, kCount, static_cast<int>(left));
    if (count < 0 && errno == EINTR && ++interruptions < kMostInterruptions) {
      continue;  // SIGSTOP and SIGCONT cannot be blocked
    }
    if (count < 0) {
      return errno;
    }
    if (count == 0 && ending) {
      return 0;
    }
    interruptions = 0;
    if (watched.parent != 0 && ::getppid() != watched.parent) {
      end_within(kMoment + watched.grace);
    }
    char byte;
    // Left there for the other guard.
    if (entries[kSocket].revents != 0 && ::recv(watched.socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1) {
      return 0;
    }
    for (int i = 0; i < kSignals; ++i) {
      if (entries[i].revents != 0) {
        entries[i].fd = -1;
        end_within(kMoment + (i == kOuter ? 0 : watched.grace));
      }
    }
    signalfd_siginfo signal{};
    ssize_t size = 0;
    while ((size = ::read(watched.signals, &signal, sizeof signal)) == sizeof signal) {
      const int number = static_cast<int>(signal.ssi_signo);
      if (number != SIGCHLD && number != SIGCONT && status == kStillRuns) {
        ::kill(child, number);
      }
    }
    if (size < 0 && errno != EAGAIN) {
      return errno;
    }
    const Children::Left left_over = children.collect(WNOHANG);
    if (left_over != Children::Left::kSome) {
      return left_over == Children::Left::kNone ? 0 : errno;
    }
    if (status != kStillRuns) {
      end_within(kMoment);
    }
  }
}

// Returns when nothing is left.
void see_to_the_end_of(pid_t child, const Watched& watched, const Detached& detached, int& status) {
  Children children(child, status, detached);
  if (const int error = watch(child, children, watched, status); error != 0) {
    report(watched.socket, Step::kWatch, error);
  }
  children.kill_all();
}

void close_range(unsigned first, unsigned last) {
  if (::syscall(kCloseRange, first, last, 0) == 0) {
    return;
  }
  for (unsigned fd = first; fd <= last && fd < kMostDescriptors; ++fd) {
    ::close(static_cast<int>(fd));
  }
}

// Closes the descriptors that are the program's. If a guard held the end of a pipe, its reader would wait for ever.
void close_all_but(const Watched& kept, int also) {
  int fds[] = {kept.socket, kept.coordinator, kept.signals, kept.outer, also};
  constexpr int kKept = sizeof fds / sizeof *fds;
  for (int i = 0; i < kKept; ++i) {
    for (int j = i + 1; j < kKept; ++j) {
      if (fds[j] < fds[i]) {
        const int lower = fds[j];
        fds[j] = fds[i];
        fds[i] = lower;
      }
    }
  }
  unsigned first = 0;
  for (const int fd : fds) {
    if (fd >= 0) {
      const auto number = static_cast<unsigned>(fd);
      if (number > first) {
        close_range(first, number - 1);
      }
      first = number + 1;
    }
  }
  close_range(first, UINT_MAX);
}

// --- Both of them ------------------------------------------------------------------------------------

void guard_what_follows() {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  ::prctl(PR_SET_NAME, "execnet-guard");
}

// Who has made the socket; our parent, as long as that is there.
pid_t maker_of(int socket) {
  ucred maker{};
  socklen_t size = sizeof maker;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &maker, &size) == 0 ? maker.pid : ::getppid();
}

[[noreturn]] void end_without(int socket, Step step) {
  report(socket, step, errno);
  ::_exit(127);
}

}  // namespace

pid_t fork_plainly() {
#ifdef __s390__
  return static_cast<pid_t>(::syscall(SYS_clone, nullptr, SIGCHLD, nullptr, nullptr, nullptr));
#else
  return static_cast<pid_t>(::syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, nullptr));
#endif
}

void run(int argc, char** argv, char** envp, bool owns_arguments) {
  if (argc < 9) {
    ::_exit(2);
  }
  const int socket = number_in(argv[1]);
  const int coordinator = number_in(argv[2]) > 0 ? number_in(argv[2]) : -1;
  const bool isolate = std::strcmp(argv[3], "pidns") == 0;
  const int grace = number_in(argv[4]);
  const Program program{argv + 7, number_in(argv[6]), argv + 7 + number_in(argv[6]), envp};
  const auto forget = [&] {
    if (owns_arguments) {
      forget_arguments(argc, argv);
    }
  };
  // The kernel would collect our children, and nobody would know how they have ended.
  const bool ignores_children = ::signal(SIGCHLD, SIG_DFL) == SIG_IGN;
  sigset_t all;
  ::sigfillset(&all);
  int signals = -1;
  int above[2];  // from the outer one to the inner one: a byte when it has left the group, and its end
  // Shared memory in which the inner guard leaves the program's number, and its status. The outer guard ends with that
  // status, because the coordinator sees only its end. The inner one cannot tell it by its own end: it may be killed,
  // and the first process of a PID namespace cannot end by a signal.
  struct Shared {
    pid_t program;
    int status;
  };
  void* shared = MAP_FAILED;
  if (::fcntl(socket, F_SETFD, FD_CLOEXEC) != 0 ||
      (coordinator >= 0 && ::fcntl(coordinator, F_SETFD, FD_CLOEXEC) != 0) ||
      ::sigprocmask(SIG_SETMASK, &all, nullptr) != 0 ||
      (signals = ::signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK)) < 0 || ::pipe2(above, O_CLOEXEC) != 0 ||
      (shared = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) ==
          MAP_FAILED) {
    end_without(socket, Step::kEquip);
  }
  pid_t& child = static_cast<Shared*>(shared)->program;
  int& program_status = static_cast<Shared*>(shared)->status;
  program_status = kStillRuns;
  const Detached detached{std::strcmp(argv[5], "keep") == 0, ::getsid(0), child};

  guard_what_follows();
  if (isolate && !enter_namespace()) {
    end_without(socket, Step::kIsolate);
  }
  const pid_t inner = fork_plainly();
  if (inner < 0) {
    end_without(socket, Step::kProcess);
  }
  if (inner > 0) {
    ::setsid();
    forget();  // before the inner one goes on, and can say that all is done
    const Watched watched{socket, coordinator, signals, -1, grace, coordinator < 0 ? maker_of(socket) : 0};
    int status = kStillRuns;
    if (::write(above[1], "", 1) == 1) {
      close_all_but(watched, above[1]);
      see_to_the_end_of(inner, watched, detached, status);
    } else {
      report(socket, Step::kEquip, errno);
      Children(inner, status, detached).kill_all();
    }
    end_like(program_status != kStillRuns ? program_status : status);
  }
  guard_what_follows();
  if (isolate && !mount_proc()) {
    end_without(socket, Step::kIsolate);
  }
  ::close(above[1]);
  char byte;
  if (::read(above[0], &byte, 1) != 1) {
    end_without(socket, Step::kEquip);
  }
  child = start(program, socket, ignores_children);
  if (child < 0) {
    ::_exit(127);
  }
  forget();
  const Watched watched{socket, coordinator, signals, above[0], grace};
  if (report(socket, Step::kRunning)) {
    close_all_but(watched, -1);
    see_to_the_end_of(child, watched, detached, program_status);
  } else {
    Children(child, program_status, detached).kill_all();
  }
  ::_exit(0);
}

}  // namespace execnet::guard
