#include "base/wait.hpp"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/select.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/syscall.hpp"

namespace execnet::base {
namespace {

// A signal that lands between the caller's last look for signals and the system call would go
// unnoticed until the next wake-up. So the first sleep of a wait is short, and only that one:
// an idle waiter costs one extra wake-up in all, not one a period.
constexpr std::chrono::milliseconds kFirstSleep{50};
// Who is too busy to sleep looks as often.
constexpr std::chrono::milliseconds kMostBusy = kFirstSleep;
// Who finds more at each look may take it for so long, though the deadline has passed: with no time at all, too, what
// is there already is to be found.
constexpr std::chrono::milliseconds kLastMoment{20};

// A set of any size for pselect(2): fd_set ends at 1024.
class FdSet {
 public:
  explicit FdSet(int highest) : words_(static_cast<std::size_t>(highest) / kBits + 1) {}
  void add(int fd) { word(fd) |= bit(fd); }
  [[nodiscard]] bool has(int fd) { return (word(fd) & bit(fd)) != 0; }
  [[nodiscard]] fd_set* get() { return reinterpret_cast<fd_set*>(words_.data()); }

 private:
  static constexpr int kBits = 8 * sizeof(unsigned long);

  unsigned long& word(int fd) { return words_[static_cast<std::size_t>(fd / kBits)]; }
  static unsigned long bit(int fd) { return 1UL << (fd % kBits); }

  std::vector<unsigned long> words_;
};

int select_once(std::span<pollfd> fds, const timespec* left, const sigset_t* blocked) {
  int highest = 0;
  int invalid = 0;
  for (pollfd& one : fds) {
    one.revents = 0;
    if (one.fd >= 0 && ::fcntl(one.fd, F_GETFD) < 0) {
      one.revents = POLLNVAL;
      ++invalid;
    }
    highest = std::max(highest, one.fd);
  }
  if (invalid != 0) {
    return invalid;
  }
  FdSet reads(highest);
  FdSet writes(highest);
  for (const pollfd& one : fds) {
    if (one.fd >= 0 && (one.events & POLLIN) != 0) {
      reads.add(one.fd);
    }
    if (one.fd >= 0 && (one.events & POLLOUT) != 0) {
      writes.add(one.fd);
    }
  }
  const int ready = ::pselect(highest + 1, reads.get(), writes.get(), nullptr, left, blocked);
  if (ready > 0) {
    for (pollfd& one : fds) {
      const bool readable = one.fd >= 0 && reads.has(one.fd);
      const bool writable = one.fd >= 0 && writes.has(one.fd);
      one.revents = static_cast<short>((readable ? POLLIN : 0) | (writable ? POLLOUT : 0));
    }
  }
  return ready;
}

// A hub waits for one descriptor that is this wait's own: a set that holds those wanted.
bool wait_in_hub(std::span<pollfd> fds, const Wait& wait) {
  const Fd set(check("epoll_create1", [] { return ::epoll_create1(EPOLL_CLOEXEC); }));
  for (const pollfd& wanted : fds) {
    epoll_event event{};
    event.events = static_cast<std::uint32_t>(wanted.events);
    check("epoll_ctl", [&] { return ::epoll_ctl(set.get(), EPOLL_CTL_ADD, wanted.fd, &event); });
  }
  for (;;) {
    if (check("poll", [&] { return poll_once(fds, Clock::now()); }) > 0) {
      return true;
    }
    if (has_passed(wait.deadline)) {
      return false;
    }
    wait.hub->wait_readable(set.get(), wait.deadline);
  }
}

}  // namespace

Deadline deadline_after(std::optional<Seconds> seconds) {
  constexpr double kForever = 1e9;
  if (seconds && std::isnan(seconds->count())) {
    throw std::invalid_argument("a timeout is a number of seconds, not nan");
  }
  if (!seconds || seconds->count() >= kForever) {
    return std::nullopt;
  }
  const Seconds positive(std::max(0.0, seconds->count()));
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(positive);
}

bool has_passed(const Deadline& deadline) { return deadline && Clock::now() >= *deadline; }

int poll_once(std::span<pollfd> fds, const Deadline& deadline, const sigset_t* blocked) {
  timespec left{};
  if (deadline) {
    const auto nanos = std::max<std::chrono::nanoseconds>(*deadline - Clock::now(), std::chrono::nanoseconds(0));
    left.tv_sec = static_cast<time_t>(nanos.count() / 1'000'000'000);
    left.tv_nsec = static_cast<long>(nanos.count() % 1'000'000'000);
  }
  const timespec* const until = deadline ? &left : nullptr;
  const int ready = ::ppoll(fds.data(), fds.size(), until, blocked);
  return ready < 0 && errno == EINVAL ? select_once(fds, until, blocked) : ready;
}

Woken Sleep::until_ready(std::span<pollfd> fds) {
  Deadline until = deadline_;
  if (check_soon_) {
    const auto soon = Clock::now() + kFirstSleep;
    until = until ? std::min(*until, soon) : soon;
  }
  const int ready = poll_once(fds, until);
  if (ready > 0) {
    return Woken::kReady;
  }
  if (ready < 0 && errno != EINTR) {
    throw_system_error(errno, "ppoll");
  }
  const bool checking = std::exchange(check_soon_, false);
  return ready < 0 || (checking && !has_passed(deadline_)) ? Woken::kSignal : Woken::kTimedOut;
}

Woken Sleep::instead(Clock::time_point now) {
  if (deadline_ && now >= *deadline_ + kLastMoment) {
    return Woken::kTimedOut;
  }
  if (!interruptible_ || !busy_since_ || now - *busy_since_ < kMostBusy) {
    busy_since_ = busy_since_.value_or(now);
    return Woken::kReady;
  }
  busy_since_ = now;
  return Woken::kSignal;
}

bool poll_until(std::span<pollfd> fds, const Wait& wait) {
  if (wait.hub != nullptr) {
    return wait_in_hub(fds, wait);
  }
  Sleep sleep(wait);
  for (;;) {
    switch (sleep.until_ready(fds)) {
      case Woken::kReady: return true;
      case Woken::kTimedOut: return false;
      case Woken::kSignal:
        if (wait.interrupted != nullptr) {
          wait.interrupted();
        }
        break;
    }
  }
}

}  // namespace execnet::base
