// How long a caller may wait, and how a signal gets it out of the wait.
//
// Every blocking function of the library takes a `Wait`. `interrupted` is called on the waiting
// thread, with none of the library's locks held, when a signal arrived; it throws to abandon the
// wait (the Python bindings run the interpreter's signal handlers there) or returns to go on.
#pragma once

#include <poll.h>

#include <chrono>
#include <optional>
#include <span>

namespace execnet::base {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

// A point in time; none means for ever. Built once at the entry of a call, so that what a call
// does in several steps shares one deadline.
using Deadline = std::optional<Clock::time_point>;

// `seconds` from now; none for no time-out. Negative counts as zero, absurdly long as for ever.
Deadline deadline_after(std::optional<Seconds> seconds);

bool has_passed(const Deadline& deadline);

struct Wait {
  Deadline deadline = std::nullopt;
  void (*interrupted)() = nullptr;
};

enum class Woken { kReady, kTimedOut, kSignal };

// One sleep, or several that make up one wait. For callers that must put things in order before
// wait.interrupted runs; the others use poll_until.
class Sleep {
 public:
  explicit Sleep(const Wait& wait) : deadline_(wait.deadline), check_soon_(wait.interrupted != nullptr) {}
  // ppoll(2) until a descriptor is ready, the deadline has passed, or it is time to look for signals.
  Woken until_ready(std::span<pollfd> fds);

 private:
  Deadline deadline_;
  bool check_soon_;
};

// Sleeps until a descriptor is ready or the deadline has passed; true when one is ready.
// A signal calls wait.interrupted; what that throws passes through.
bool poll_until(std::span<pollfd> fds, const Wait& wait);

}  // namespace execnet::base
