// How long a caller may wait, and how a signal gets it out of the wait.
//
// Every blocking function of the library takes a `Wait`. `interrupted` is called on the waiting
// thread, with none of the library's locks held, when a signal arrived; it throws to abandon the
// wait (the Python bindings run the interpreter's signal handlers there) or returns to go on.
#pragma once

#include <poll.h>

#include <chrono>
#include <csignal>
#include <optional>
#include <span>

namespace execnet::base {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

// A point in time; none means for ever. Built once at the entry of a call, so that what a call
// does in several steps shares one deadline.
using Deadline = std::optional<Clock::time_point>;

// `seconds` from now; none for no time-out. A negative number means now; one of 30 years and more, and infinity, mean
// for ever. Throws std::invalid_argument for nan. All time-outs of the C++ and the Python API come through here.
Deadline deadline_after(std::optional<Seconds> seconds);

bool has_passed(const Deadline& deadline);

// What a thread does that runs many greenlets, when one of them has to wait: it runs the others.
//
// They share the thread's stack: while one waits its part may lie elsewhere, with another's in its place.
// So nothing may point into the stack of a function that waits, but the function itself and what it has
// called. And a greenlet must not wait while it handles a C++ exception, of which the runtime keeps
// account for each thread.
class Hub {
 public:
  Hub() = default;
  virtual ~Hub() = default;
  Hub(const Hub&) = delete;
  Hub& operator=(const Hub&) = delete;

  // Runs others until `fd` is readable or the deadline has passed. No other greenlet waits for this `fd`.
  // Throws to abandon the wait.
  virtual void wait_readable(int fd, const Deadline& deadline) const = 0;
};

struct Wait {
  Deadline deadline = std::nullopt;
  void (*interrupted)() = nullptr;
  // For a greenlet, which blocks itself and not its thread: its hub, and which one it is. Signals
  // are for the hub then, and `interrupted` is not called.
  const Hub* hub = nullptr;
  const void* greenlet = nullptr;

  // The same with another deadline.
  [[nodiscard]] Wait until(Deadline other) const {
    Wait wait = *this;
    wait.deadline = other;
    return wait;
  }
};

// poll(2), once, until the deadline: its result, and errno. Also where the program has set its limit of descriptors
// below the number of `fds`, which poll(2) refuses. With `blocked` these signals are blocked meanwhile, and no others.
int poll_once(std::span<pollfd> fds, const Deadline& deadline, const sigset_t* blocked = nullptr);

enum class Woken { kReady, kTimedOut, kSignal };

// One sleep, or several that make up one wait. For callers that must put things in order before
// wait.interrupted runs; the others use poll_until.
class Sleep {
 public:
  explicit Sleep(const Wait& wait) : deadline_(wait.deadline), interruptible_(wait.interrupted != nullptr) {}
  // ppoll(2) until a descriptor is ready, the deadline has passed, or it is time to look for signals.
  Woken until_ready(std::span<pollfd> fds);
  // For who need not sleep, at `now`, since there is always something to do: whether the deadline has passed, or it is
  // time to look for signals.
  Woken instead(Clock::time_point now);

 private:
  Deadline deadline_;
  bool interruptible_;
  bool check_soon_ = interruptible_;
  std::optional<Clock::time_point> busy_since_;  // or since it was last time to look for signals
};

// Sleeps until a descriptor is ready or the deadline has passed; true when one is ready.
// A signal calls wait.interrupted; what that, or the hub, throws passes through.
bool poll_until(std::span<pollfd> fds, const Wait& wait);

}  // namespace execnet::base
