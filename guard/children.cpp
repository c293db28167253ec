#include "children.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace execnet::guard {
namespace {

// Nobody but a debugger interrupts a process that has blocked all signals. A call that returned EINTR for ever would
// look the same, so interruptions are counted.
constexpr int kMostInterruptions = 100;
// Rounds of killing that have changed nothing, and the pause after each: a second in all.
constexpr int kMostFruitless = 100;
constexpr long kPause = 10;  // milliseconds
// The highest number that a process can have, for when /proc/sys/kernel/pid_max cannot be read.
constexpr pid_t kHighestNumber = 4 * 1024 * 1024;
// The numbers that the kernel has given most recently are looked at first.
constexpr pid_t kRecentNumbers = 65536;

void pause() {
  const timespec time{0, kPause * 1'000'000};
  if (::nanosleep(&time, nullptr) != 0) {
    ::poll(nullptr, 0, kPause);
  }
}

// The beginning of a file, as a string; empty if there is none.
template <std::size_t kSize>
const char* read_file(const char* path, char (&text)[kSize]) {
  text[0] = '\0';
  const int file = ::open(path, O_RDONLY | O_CLOEXEC);
  if (file >= 0) {
    const ssize_t size = ::read(file, text, kSize - 1);
    text[size > 0 ? size : 0] = '\0';
    ::close(file);
  }
  return text;
}

pid_t leading_number(const char* text) {
  pid_t number = 0;
  for (; *text >= '0' && *text <= '9'; ++text) {
    number = number * 10 + (*text - '0');
  }
  return number;
}

// The beginning of "/proc/PID/stat", "PID (name) state parent ...", where the name may be anything.
template <std::size_t kSize>
const char* read_stat(pid_t pid, char (&text)[kSize]) {
  char digits[16];
  char* first = digits + sizeof digits - 1;
  *first = '\0';
  for (pid_t rest = pid; rest > 0; rest /= 10) {
    *--first = static_cast<char>('0' + rest % 10);
  }
  char path[40] = "/proc/";
  std::strcat(path, first);
  std::strcat(path, "/stat");
  return read_file(path, text);
}

pid_t parent_in_proc(pid_t pid) {
  char text[512];
  const char* name_end = std::strrchr(read_stat(pid, text), ')');
  return name_end != nullptr && std::strlen(name_end) > 4 ? leading_number(name_end + 4) : 0;
}

// Another guard, which is below the program if that is a proxy.
bool is_guard(pid_t pid) {
  char text[512];
  return std::strstr(read_stat(pid, text), " (execnet-guard) ") != nullptr;
}

int status_of(const siginfo_t& ended) {
  return ended.si_code == CLD_EXITED ? (ended.si_status & 0xff) << 8 : ended.si_status & 0x7f;
}

bool is_interruption(int& count) { return errno == EINTR && ++count < kMostInterruptions; }

}  // namespace

bool proc_is_ours() {
  // Our own entry has a number for each namespace from that of /proc down to ours.
  char text[2048];
  const char* const status = read_file("/proc/self/status", text);
  const char* own = std::strstr(status, "\nPid:\t");
  const char* all = std::strstr(status, "\nNSpid:\t");
  if (own == nullptr || leading_number(own + 6) != ::getpid()) {
    return false;
  }
  return all == nullptr || std::strcspn(all + 8, "\t") > std::strcspn(all + 8, "\n");
}

pid_t number_in(const char* text) {
  const pid_t number = leading_number(text);
  while (*text >= '0' && *text <= '9') {
    ++text;
  }
  return *text == '\0' ? number : 0;
}

Children::Left Children::collect(int options) {
  int interruptions = 0;
  for (;;) {
    siginfo_t ended{};
    if (::waitid(P_ALL, 0, &ended, WEXITED | WNOWAIT | options) == 0) {
      if (ended.si_pid == 0) {
        return Left::kSome;
      }
      int* const status = ended.si_pid == child_ ? &status_ : nullptr;
      if (::waitpid(ended.si_pid, status, 0) != ended.si_pid) {
        if (::waitid(P_PID, static_cast<id_t>(ended.si_pid), &ended, WEXITED) != 0) {
          can_wait_ = false;
          return Left::kUnknown;
        }
        if (status != nullptr) {
          *status = status_of(ended);
        }
      }
    } else if (errno == ECHILD) {
      return Left::kNone;
    } else if (!is_interruption(interruptions)) {
      int status = 0;
      const pid_t pid = ::waitpid(-1, &status, options & WNOHANG);
      if (pid == 0) {
        return Left::kSome;
      }
      if (pid < 0) {
        if (errno == ECHILD) {
          return Left::kNone;
        }
        can_wait_ = false;
        return Left::kUnknown;
      }
      if (pid == child_) {
        status_ = status;
      }
    }
    options |= WNOHANG;  // after the first, it takes only those that have ended already
  }
}

// Nobody but us collects our children. Until we have collected one, no other process can have its number.
bool Children::is_child(pid_t pid, Count& count) {
  siginfo_t info{};
  if (::waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0) {
    return true;
  }
  if (errno == ECHILD) {
    return false;
  }
  int status = 0;
  const pid_t ended = ::waitpid(pid, &status, WNOHANG);
  if (ended == pid) {
    ++count.collected;
    if (pid == child_) {
      status_ = status;
    }
  }
  if (ended >= 0 || errno == ECHILD) {
    return ended == 0;
  }
  can_wait_ = false;
  return pid == child_ ? status_ == kStillRuns : proc_is_ours() && parent_in_proc(pid) == ::getpid();
}

// If the kernel does not tell the session, it is killed.
bool Children::is_kept(pid_t pid) const {
  if (!detached_.are_kept || pid == child_) {
    return false;
  }
  const pid_t session = ::getsid(pid);
  return session >= 0 && session != detached_.session && session != detached_.program && !is_guard(pid);
}

void Children::kill_one(pid_t pid, Count& count) {
  if (!is_child(pid, count)) {
    return;
  }
  if (is_kept(pid)) {
    ++count.kept;
    return;
  }
  if (::kill(pid, SIGKILL) == 0 || ::syscall(SYS_tkill, pid, SIGKILL) == 0) {
    ++count.killed;
  } else {
    ++count.refused;
  }
}

// The kernel's own list; false where it has none (CONFIG_PROC_CHILDREN).
bool Children::kill_listed(Count& count) {
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
        kill_one(pid, count);
        pid = 0;
      }
    }
  }
  ::close(file);
  return size == 0;
}

// Those whose parent we are in the table of processes.
void Children::kill_in_table(Count& count) {
  struct Entry {
    std::uint64_t inode;
    std::int64_t offset;
    std::uint16_t length;
    std::uint8_t type;
    char name[1];
  };
  const int directory = ::open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) {
    return;
  }
  alignas(Entry) char entries[4096];
  long size = 0;
  while ((size = ::syscall(SYS_getdents64, directory, entries, sizeof entries)) > 0) {
    for (long at = 0; at < size;) {
      const auto* entry = reinterpret_cast<const Entry*>(entries + at);
      if (const pid_t pid = number_in(entry->name); pid > 0) {
        kill_one(pid, count);
      }
      at += entry->length;
    }
  }
  ::close(directory);
}

// Without /proc: asks about every number that there may be. That takes a second if there may be four million.
void Children::kill_by_number(Count& count) {
  char text[16];
  const pid_t limit = leading_number(read_file("/proc/sys/kernel/pid_max", text));
  const pid_t highest = limit > 0 ? limit : kHighestNumber;
  const pid_t self = ::getpid();
  if (!kill_numbers(self, self + kRecentNumbers, count)) {
    kill_numbers(1, highest, count);
  }
}

// Whether there were some.
bool Children::kill_numbers(pid_t from, pid_t to, Count& count) {
  const int before = count.seen();
  for (pid_t pid = from; pid <= to && can_wait_; ++pid) {
    kill_one(pid, count);
  }
  return count.seen() > before;
}

void Children::kill_all() {
  for (int fruitless = 0; fruitless < kMostFruitless && collect(WNOHANG) != Left::kNone;) {
    Count count;
    if (!kill_listed(count)) {
      kill_in_table(count);
    }
    if (count.seen() == 0) {
      kill_by_number(count);
    }
    if (count.killed == 0 && status_ == kStillRuns) {
      kill_one(child_, count);
    }
    if (count.killed == 0 && (count.refused + count.kept > 0 || !can_wait_)) {
      return;
    }
    if (!can_wait_) {
      ::signal(SIGCHLD, SIG_IGN);  // then the kernel collects them
    }
    if (count.killed == 0 || collect(0) == Left::kUnknown) {
      ++fruitless;
      pause();
    }
  }
}

}  // namespace execnet::guard
