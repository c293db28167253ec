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
// It ends when nothing is left, with the exit status or the signal of its child.
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

void report(int socket, Step step, int error, pid_t pid) {
  const Report report{step, error, pid};
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
pid_t start(const Program& program, int socket, pid_t group) {
  const pid_t parent = ::getpid();
  volatile int error = 0;
  const pid_t pid = ::vfork();  // shares our memory until it is the program
  if (pid == 0) {
    // Where the keyboard's signals go, and `kill` of a shell's job. It fails, and that is no matter, when the group is
    // of another session than we are.
    ::setpgid(0, group);
    // A guard that is killed takes the program along; the rest is the other one's.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) {
      ::_exit(127);
    }
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    error = become(program);
    ::_exit(127);
  }
  if (pid < 0) {
    report(socket, Step::kProcess, errno, 0);
  } else if (error != 0) {
    report(socket, Step::kExec, error, 0);
  } else {
    report(socket, Step::kRunning, 0, pid);
  }
  return error == 0 ? pid : -1;
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

// The first process of a namespace cannot end by a signal: here it leaves what the outer one is to end like.
int* isolated_status = nullptr;

// Ends as the child has ended.
[[noreturn]] void end_like(int status) {
  if (isolated_status != nullptr) {
    if (::getpid() == 1) {
      *isolated_status = status;
      ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    }
    status = *isolated_status != kStillRuns ? *isolated_status : status;
  }
  if (WIFEXITED(status)) {
    ::_exit(WEXITSTATUS(status));
  }
  const int number = WTERMSIG(status);
  const rlimit no_core{0, 0};  // there is one of the child's already
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

// Collects what has ended of our children. Whether there are more.
bool collect(pid_t child, int& status, bool& child_ended, int options) {
  for (;;) {
    int how = 0;
    const pid_t pid = ::waitpid(-1, &how, options);
    if (pid < 0) {
      return errno != ECHILD;
    }
    if (pid == 0) {
      return true;
    }
    if (pid == child) {
      status = how;
      child_ended = true;
    }
    options |= WNOHANG;  // one is waited for, the others only taken along
  }
}

// Kills all of them, again and again: a child that dies hands its own children to us.
void sweep(pid_t child, int& status, bool& child_ended) {
  for (;;) {
    Count count;
    if (!kill_listed_children(count)) {
      kill_found_children(count);
    }
    if (count.killed == 0 && count.refused > 0) {
      return;
    }
    // Where /proc shows none there may be some all the same: without /proc the child itself is all we know of.
    if (count.killed == 0 && !child_ended) {
      ::kill(child, SIGKILL);
    }
    if (!collect(child, status, child_ended, 0)) {
      return;
    }
  }
}

// --- The watch ---------------------------------------------------------------------------------------

struct Watched {
  int socket;
  int coordinator;
  int outer;  // a pidfd; -1 for the outer one itself
};

[[noreturn]] void watch(pid_t child, const Watched& watched) {
  sigset_t all;
  ::sigfillset(&all);
  const int signals = ::signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
  enum { kSocket, kCoordinator, kOuter, kSignals, kCount };
  pollfd entries[kCount] = {
      {watched.socket, POLLIN, 0}, {watched.coordinator, POLLIN, 0}, {watched.outer, POLLIN, 0}, {signals, POLLIN, 0}};
  int status = 0;
  bool child_ended = false;
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
    while (::read(signals, &signal, sizeof signal) == sizeof signal) {
      const int number = static_cast<int>(signal.ssi_signo);
      if (number != SIGCHLD && number != SIGCONT && !child_ended) {
        ::kill(child, number);
      }
    }
    if (!collect(child, status, child_ended, WNOHANG)) {
      end_like(status);
    }
    if (child_ended) {
      in_a_moment();
    }
  }
  sweep(child, status, child_ended);
  end_like(status);
}

// Leaves the program's descriptors to it: nobody must wait for the end of a pipe that a guard holds.
void close_all_but(int a, int b, int c) {
  int kept[] = {a, b, c};
  for (int i = 0; i < 2; ++i) {
    for (int j = i + 1; j < 3; ++j) {
      if (kept[j] < kept[i]) {
        const int lower = kept[j];
        kept[j] = kept[i];
        kept[i] = lower;
      }
    }
  }
  unsigned first = 0;
  for (const int fd : kept) {
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

  // Out of the group that the keyboard's signals and `kill -9 -GROUP` are for: those are to be survived.
  const pid_t group = ::getpgrp();
  ::setpgid(0, 0);
  guard_what_follows();
  const int outer = static_cast<int>(::syscall(kPidfdOpen, ::getpid(), 0));
  if (isolate) {
    void* shared = ::mmap(nullptr, sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || !enter_namespace()) {
      report(socket, Step::kIsolate, errno, 0);
      return 127;
    }
    isolated_status = static_cast<int*>(shared);
    *isolated_status = kStillRuns;
  }
  const pid_t inner = ::fork();
  if (inner < 0) {
    report(socket, Step::kProcess, errno, 0);
    return 127;
  }
  if (inner > 0) {
    close_all_but(socket, coordinator, -1);
    watch(inner, {socket, coordinator, -1});
  }
  guard_what_follows();
  ::fcntl(outer, F_SETFD, FD_CLOEXEC);
  if (isolate && !mount_proc()) {
    report(socket, Step::kIsolate, errno, 0);
    return 127;
  }
  const pid_t child = start(program, socket, group);
  if (child < 0) {
    return 127;
  }
  close_all_but(socket, coordinator, outer);
  watch(child, {socket, coordinator, outer});
}
