// The guard: the parent of a program that a group has started, and of all that this one starts and
// leaves. It sees to it that none of them outlives the program, or who wanted it.
//
//   execnet-guard SOCKET COORDINATOR ISOLATION COUNT CANDIDATE... ARGUMENT...
//
// SOCKET is the other end of the coordinator's (process/process.hpp), COORDINATOR a pidfd of it, ISOLATION "none" or
// "pidns". Of the COUNT candidates, files, the first that can be executed is the program; the arguments are its own,
// the environment and all other descriptors, too. The program has this program's signal dispositions, an empty signal
// mask, and the process group that this one was started in.
//
// Two processes of the same kind stand above the program, one the parent of the other, so that also
// the end of either leaves nobody unguarded: the kernel hands orphans to the nearest of them
// (PR_SET_CHILD_SUBREAPER).
//
//   coordinator --- outer guard --- inner guard --- program --- what it starts
//
// Either does this: it waits
//   - for its child to end: what that has left behind gets a moment, then SIGKILL;
//   - for the coordinator to end, to become another program (SOCKET closes), or, the inner one, for
//     the outer one to end: then all get a moment, and SIGKILL;
//   - for a byte on SOCKET: all get SIGKILL now;
//   - for a signal: the child gets it.
// It ends when nothing is left, the outer one with the exit status or the signal of the program.
//
// The group that the keyboard's signals and `kill -9 -GROUP` are for is the program's; the guards leave it, since those
// are to be survived: the outer one before the program starts, so that there is always one that is out of it, and the
// inner one afterwards, since it may be a group that has no number in its namespace, to which there is no way back.
// They leave the session as well: the end of a process whose parent is of another group and the same session may leave
// its group "orphaned", and if anything in there is stopped, the kernel then sends SIGHUP to all of them, the
// coordinator among them (setpgid(2)).
//
// With "pidns" the inner one is the first process of a PID namespace (pid_namespaces(7)), with a /proc of its own: with
// it the kernel ends all that is in there, also what forks faster than anybody can look. Who is not root gets a user
// namespace for that, in which the user is the same.
//
// One thread, no allocation, nothing but system calls: it cannot fail later on for want of anything.
#include <dirent.h>
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

#include "process/guard_report.hpp"

namespace {

using execnet::process::Report;
using execnet::process::Step;

// For a worker whose coordinator has gone, to end by itself and clean up; and for what a program
// leaves behind, such as multiprocessing's resource tracker, which cleans up after it.
constexpr int kMoment = 100;  // milliseconds

constexpr int kStillRuns = -1;  // no wait status

constexpr int kPidfdOpen = 434;  // SYS_pidfd_open; not every header we are built with has the name
constexpr int kCloseRange = 436;

std::int64_t now() {  // milliseconds
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * std::int64_t{1000} + time.tv_nsec / 1'000'000;
}

void report(int socket, Step step, int error = 0) {
  const Report report{step, error};
  static_cast<void>(!::write(socket, &report, sizeof report));  // Who does not read it sees our end.
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

// -1 when it could not be started; that is reported then.
pid_t start(const Program& program, int socket) {
  const pid_t parent = ::getpid();
  volatile int error = 0;
  const pid_t pid = ::vfork();  // shares our memory until it is the program
  if (pid == 0) {
    // A guard that is killed takes the program along; the rest is the other one's.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) {
      ::_exit(127);
    }
    report(socket, Step::kProgram);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    error = become(program);
    ::_exit(127);
  }
  if (pid < 0) {
    report(socket, Step::kProcess, errno);
    return -1;
  }
  if (error != 0) {
    report(socket, Step::kExec, error);
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

// Ends as the program has ended.
[[noreturn]] void end_like(int status) {
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

pid_t number_in(const char* text) {
  pid_t number = 0;
  for (; *text >= '0' && *text <= '9'; ++text) {
    number = number * 10 + (*text - '0');
  }
  return *text == '\0' ? number : 0;
}

// Whether /proc/PID/stat names us as the parent: "PID (name) state parent ...", where the name may be anything.
bool is_child(const char* pid) {
  char path[32] = "/proc/";
  std::size_t at = 6;
  for (const char* digit = pid; *digit != '\0' && at < sizeof path - 6; ++digit) {
    path[at++] = *digit;
  }
  for (const char* rest = "/stat"; (path[at] = *rest) != '\0'; ++rest) {
    ++at;
  }
  const int file = ::open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return false;
  }
  char text[512];
  ssize_t size = ::read(file, text, sizeof text - 1);
  ::close(file);
  for (ssize_t i = size; i-- > 0;) {
    if (text[i] == ')') {
      pid_t parent = 0;
      for (i += 4; i < size && text[i] >= '0' && text[i] <= '9'; ++i) {
        parent = parent * 10 + (text[i] - '0');
      }
      return parent == ::getpid();
    }
  }
  return false;
}

struct Count {
  int killed = 0;
  int refused = 0;  // not ours to kill: they run as somebody else
};

void kill_child(pid_t pid, Count& count) {
  // A child of ours that nobody but us collects: the number cannot be a stranger's.
  if (::kill(pid, SIGKILL) == 0) {
    ++count.killed;
  } else {
    ++count.refused;
  }
}

// The kernel's own list of our children; false where it has none (CONFIG_PROC_CHILDREN).
bool kill_listed_children(Count& count) {
  const int file = ::open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    return false;
  }
  char text[4096];
  pid_t pid = 0;
  ssize_t size = 0;
  while ((size = ::read(file, text, sizeof text)) > 0) {
    for (ssize_t i = 0; i < size; ++i) {
      if (text[i] >= '0' && text[i] <= '9') {
        pid = pid * 10 + (text[i] - '0');
      } else if (pid > 0) {
        kill_child(pid, count);
        pid = 0;
      }
    }
  }
  if (pid > 0) {
    kill_child(pid, count);
  }
  ::close(file);
  return true;
}

// The same from the table of processes.
void kill_found_children(Count& count) {
  struct Entry {
    std::uint64_t inode;
    std::int64_t offset;
    std::uint16_t length;
    std::uint8_t type;
    char name[1];
  };
  const int directory = ::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  alignas(Entry) char entries[4096];
  long size = 0;
  while ((size = ::syscall(SYS_getdents64, directory, entries, sizeof entries)) > 0) {
    for (long at = 0; at < size;) {
      const auto* entry = reinterpret_cast<const Entry*>(entries + at);
      if (const pid_t pid = number_in(entry->name); pid > 0 && is_child(entry->name)) {
        kill_child(pid, count);
      }
      at += entry->length;
    }
  }
  ::close(directory);
}

// Collects what has ended of our children, and the status of the one. Whether there are more.
bool collect(pid_t child, int& status, int options) {
  for (;;) {
    siginfo_t ended{};
    if (::waitid(P_ALL, 0, &ended, WEXITED | WNOWAIT | options) < 0) {
      return errno != ECHILD;
    }
    if (ended.si_pid == 0) {
      return true;
    }
    // The kernel puts the status in its place as it takes the child away: whoever kills us cannot come between.
    ::waitpid(ended.si_pid, ended.si_pid == child ? &status : nullptr, 0);
    options |= WNOHANG;  // one is waited for, the others only taken along
  }
}

// Kills all of them, again and again: a child that dies hands its own children to us.
void sweep(pid_t child, int& status) {
  for (;;) {
    Count count;
    if (!kill_listed_children(count)) {
      kill_found_children(count);
    }
    if (count.killed == 0 && count.refused > 0) {
      return;
    }
    // Where /proc shows none there may be some all the same: without /proc the child itself is all we know of.
    if (count.killed == 0 && status == kStillRuns) {
      ::kill(child, SIGKILL);
    }
    if (!collect(child, status, 0)) {
      return;
    }
  }
}

// --- The watch ---------------------------------------------------------------------------------------

struct Watched {
  int socket;
  int coordinator;
  int signals;  // a signalfd; it tells whoever reads it of his own
  int outer;    // a pidfd; -1 for the outer one itself
};

// Until nothing is left. `status` is kStillRuns at first, and then that of the child.
void watch(pid_t child, const Watched& watched, int& status) {
  enum { kSocket, kCoordinator, kOuter, kSignals, kCount };
  pollfd entries[kCount] = {{watched.socket, POLLIN, 0},
                            {watched.coordinator, POLLIN, 0},
                            {watched.outer, POLLIN, 0},
                            {watched.signals, POLLIN, 0}};
  std::int64_t deadline = INT64_MAX;
  const auto in_a_moment = [&] {
    if (deadline == INT64_MAX) {
      deadline = now() + kMoment;
    }
  };
  for (;;) {
    const std::int64_t left = deadline == INT64_MAX ? -1 : deadline - now();
    if (deadline != INT64_MAX && left <= 0) {
      break;
    }
    if (::poll(entries, kCount, static_cast<int>(left)) < 0) {
      continue;  // EINTR: SIGSTOP and SIGCONT cannot be blocked
    }
    char byte;
    // Left there for the other guard.
    if (entries[kSocket].revents != 0 && ::recv(watched.socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1) {
      break;
    }
    for (int i = 0; i < kSignals; ++i) {
      if (entries[i].revents != 0) {
        entries[i].fd = -1;
        in_a_moment();
      }
    }
    signalfd_siginfo signal{};
    while (::read(watched.signals, &signal, sizeof signal) == sizeof signal) {
      const int number = static_cast<int>(signal.ssi_signo);
      if (number != SIGCHLD && number != SIGCONT && status == kStillRuns) {
        ::kill(child, number);
      }
    }
    if (!collect(child, status, WNOHANG)) {
      return;
    }
    if (status != kStillRuns) {
      in_a_moment();
    }
  }
  sweep(child, status);
}

// Leaves the program's descriptors to it: nobody must wait for the end of a pipe that a guard holds. Those that are
// kept have higher numbers, since they were made later.
void close_all_but(Watched kept) {
  int fds[] = {kept.socket, kept.coordinator, kept.signals, kept.outer};
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
    if (fd < 0) {
      continue;
    }
    if (static_cast<unsigned>(fd) > first) {
      const auto last = static_cast<unsigned>(fd) - 1;
      if (::syscall(kCloseRange, first, last, 0) != 0) {
        for (unsigned one = first; one <= last; ++one) {
          ::close(static_cast<int>(one));
        }
      }
    }
    first = static_cast<unsigned>(fd) + 1;
  }
}

void guard_what_follows() {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  ::prctl(PR_SET_NAME, "execnet-guard");
}

}  // namespace

int main(int argc, char** argv, char** envp) {
  if (argc < 7) {
    return 2;
  }
  const int socket = number_in(argv[1]);
  const int coordinator = number_in(argv[2]);
  const bool isolate = std::strcmp(argv[3], "pidns") == 0;
  const Program program{argv + 5, number_in(argv[4]), argv + 5 + number_in(argv[4]), envp};
  ::fcntl(socket, F_SETFD, FD_CLOEXEC);
  ::fcntl(coordinator, F_SETFD, FD_CLOEXEC);
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);

  const int signals = ::signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
  const int outer = static_cast<int>(::syscall(kPidfdOpen, ::getpid(), 0));  // close-on-exec, as all of these
  int left_group[2];  // its end tells the inner one that the outer one has left the group
  // Where the inner one leaves the program's status, since it may be killed, as the first process of a namespace cannot
  // end by a signal, and since only the outer one's end is looked at.
  void* shared = ::mmap(nullptr, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (signals < 0 || outer < 0 || ::pipe2(left_group, O_CLOEXEC) != 0 || shared == MAP_FAILED) {
    report(socket, Step::kEquip, errno);
    return 127;
  }
  int& program_status = *static_cast<int*>(shared);
  program_status = kStillRuns;

  guard_what_follows();
  if (isolate && !enter_namespace()) {
    report(socket, Step::kIsolate, errno);
    return 127;
  }
  const pid_t inner = ::fork();
  if (inner < 0) {
    report(socket, Step::kProcess, errno);
    return 127;
  }
  if (inner > 0) {
    ::setsid();
    forget_arguments(argc, argv);  // before the inner one goes on, and can say that all is done
    const Watched watched{socket, coordinator, signals, -1};
    close_all_but(watched);
    ::close(outer);
    ::close(left_group[0]);
    ::close(left_group[1]);
    int status = kStillRuns;
    watch(inner, watched, status);
    end_like(program_status != kStillRuns ? program_status : status);
  }
  guard_what_follows();
  if (isolate && !mount_proc()) {
    report(socket, Step::kIsolate, errno);
    return 127;
  }
  ::close(left_group[1]);
  char none;
  static_cast<void>(!::read(left_group[0], &none, 1));
  ::close(left_group[0]);
  const pid_t child = start(program, socket);
  if (child < 0) {
    return 127;
  }
  forget_arguments(argc, argv);
  report(socket, Step::kRunning);
  const Watched watched{socket, coordinator, signals, outer};
  close_all_but(watched);
  watch(child, watched, program_status);
  return 0;
}
