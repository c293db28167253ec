#include "connection/reading.hpp"

#include <poll.h>

#include <array>
#include <chrono>
#include <exception>
#include <span>
#include <utility>

namespace execnet::core {
namespace {

constexpr std::chrono::milliseconds kTick{1};
// Messages at longer intervals may take the way over a thread that waits for another.
constexpr std::chrono::microseconds kConversation{300};
constexpr int kReadsInARow = 16;  // of one ring, by the loop, which has others to read
constexpr int kMostForOthers = 3;

}  // namespace

// --- Waiting ---

bool Reading::wait_until(Lock& lock, const void* topic, const base::Wait& wait, const std::function<bool()>& ready) {
  if (ready()) {
    return true;
  }
  if (wait.hub != nullptr) {
    return wait_in_greenlet(lock, topic, wait, ready);
  }
  Thread self(*this, lock, topic, Thread::For::kMessage);
  self.enter();
  base::Sleep sleep(wait);
  base::Woken woken = base::Woken::kReady;
  while (!ready()) {
    if (woken == base::Woken::kTimedOut) {
      if (self.stands_back()) {  // its message may lie there
        self.look();
      }
      return ready();
    }
    if (woken == base::Woken::kSignal && wait.interrupted != nullptr) {
      // What runs now may wait on this very connection: it must find things in order.
      self.leave();
      lock.unlock();
      wait.interrupted();
      lock.lock();
      self.enter();
      woken = base::Woken::kReady;
      continue;
    }
    woken = self.sleep(sleep);
  }
  return true;
}

bool Reading::wait_in_greenlet(Lock& lock, const void* topic, const base::Wait& wait,
                               const std::function<bool()>& ready) {
  Waits::Greenlet self(waits_, lock, topic);
  settle();
  while (!ready()) {
    if (base::has_passed(wait.deadline)) {
      return false;
    }
    self.sleep(wait);
  }
  return true;
}

Reading::Thread::Thread(Reading& reading, Lock& lock, const void* topic, For what)
    : reading_(reading), lock_(lock), waiting_(topic), for_message_(what == For::kMessage) {}

Reading::Thread::~Thread() {
  if (!lock_.owns_lock()) {
    lock_.lock();
  }
  if (entered_) {
    try {
      leave();
    } catch (const std::exception&) {  // No memory to have others read: whoever looks finds the end of the stream.
      reading_.link_.shut_down();
    }
  }
}

void Reading::Thread::enter() {
  reading_.waits_.enter(waiting_);
  entered_ = true;
}

void Reading::Thread::leave() {
  reading_.waits_.leave(waiting_);
  entered_ = false;
  if (std::exchange(reads_, false) && reading_.roles_.reader == Reader::kCaller) {
    reading_.roles_.reader = Reader::kNone;
  }
  reading_.settle();
}

base::Woken Reading::Thread::sleep(base::Sleep& sleep, bool for_room) {
  Roles& roles = reading_.roles_;
  if (!reads_ && !stands_back() && (roles.reader == Reader::kNone || roles.reader == Reader::kArmed)) {
    roles.reader = Reader::kCaller;
    roles.update_interest();
    reads_ = true;
  }
  const auto wanted = static_cast<short>((reads_ ? POLLIN : 0) | (for_room ? POLLOUT : 0));
  std::array<pollfd, 2> fds{{{waiting_.waiter().fd(), POLLIN, 0}, {reading_.link_.fd(), wanted, 0}}};
  waiting_.falls_asleep();
  lock_.unlock();
  base::Woken woken = base::Woken::kReady;
  const auto begin = base::Clock::now();
  bool there = reads_ && reading_.comes_soon(for_message_);
  if (!there) {
    woken = sleep.until_ready(std::span(fds).first(wanted != 0 ? 2 : 1));
    there = reads_ && (fds[1].revents & ~POLLOUT) != 0;
    if (there && for_message_) {
      const auto slept = base::Clock::now() - begin;
      reading_.spin_.slept(slept);
      if (slept > kConversation) {
        for_others_ = 0;
      }
    }
    if (fds[0].revents != 0) {
      waiting_.clear();
    }
  }
  if (there) {
    read();
  } else {
    lock_.lock();
    waiting_.is_awake();
  }
  return woken == base::Woken::kReady ? sleep.instead(begin) : woken;
}

// Without the lock; has it again.
void Reading::Thread::read() {
  Incoming incoming = reading_.frames_.read();
  lock_.lock();
  waiting_.is_awake();
  ++reading_.activity_;
  const std::uint64_t woken = reading_.waits_.woken();
  reading_.receiver_.take_in(lock_, std::move(incoming));
  reads_ = reading_.roles_.reader == Reader::kCaller;  // or the stream has ended, by what was in it
  if (reads_ && for_message_ && reading_.waits_.woken() != woken && ++for_others_ == kMostForOthers) {
    stand_back();
  }
}

// If one of the messages was for this thread, its wait is over anyway.
void Reading::Thread::stand_back() {
  waiting_.stand_back();
  reads_ = false;
  reading_.roles_.reader = Reader::kNone;
  reading_.settle();
}

void Reading::Thread::look() {
  Roles& roles = reading_.roles_;
  if (!reads_ && roles.reader == Reader::kNone) {
    roles.reader = Reader::kCaller;
    reads_ = true;
  }
  if (reads_ && (!reading_.link_.reads_ring() || reading_.link_.readable())) {
    lock_.unlock();
    read();
  }
}

// Whether there is something to read: now or, if it spins, within the moment that is worth spinning for. If not, the
// other side rings the bell for what comes next. The calling thread has the reading, and not the lock.
bool Reading::comes_soon(bool spins) {
  if (!link_.reads_ring()) {
    return frames_.has_more();
  }
  link_.is_awake();
  return (spins && spin_.until([&] { return link_.readable(); })) || !link_.may_sleep_reading();
}

// --- The loop ---

void Reading::settle() {
  if (roles_.reader != Reader::kNone) {
    return;
  }
  if (waits_.has_readers()) {
    waits_.wake_a_reader();
  } else if (waits_.has_greenlets() || roles_.loop_waits_for_bell()) {
    arm();
  } else {
    start_ticking();
  }
}

void Reading::start_ticking() {
  if (ticking_) {
    return;
  }
  try {
    roles_.call_after(kTick, [this](Lock&) { tick(); });
    ticking_ = true;
  } catch (const std::exception&) {  // No memory, and whoever leaves a wait cannot be told: the loop reads at once.
    arm();
  }
}

void Reading::tick() {
  ticking_ = false;
  const bool active = std::exchange(activity_seen_, activity_) != activity_;
  if (roles_.reader == Reader::kNone && !waits_.has_readers() && !active) {
    arm();
  } else if (roles_.reader == Reader::kNone) {
    settle();
  } else if (roles_.reader == Reader::kCaller && active) {
    start_ticking();
  }  // Without traffic it is a long wait: whoever ends it starts the ticking again.
}

void Reading::arm() {
  roles_.reader = Reader::kArmed;
  roles_.update_interest();
  if (!link_.may_sleep_reading() || frames_.has_more()) {  // The socket does not tell of what was taken from it.
    roles_.call_after(std::chrono::milliseconds(0), [this](Lock& lock) { on_readable(lock); });
  }
}

void Reading::read_as_loop(Lock& lock) {
  roles_.reader = Reader::kLoop;
  lock.unlock();
  Incoming incoming = frames_.read();
  lock.lock();
  // This may let go of the lock. Nobody is to read what comes next before it is done.
  receiver_.take_in(lock, std::move(incoming));
  if (roles_.reader == Reader::kLoop) {
    roles_.reader = Reader::kNone;
  }
}

void Reading::on_readable(Lock& lock) {
  if (roles_.reader != Reader::kArmed) {
    return;
  }
  int reads = 0;
  do {
    read_as_loop(lock);
  } while (roles_.reader == Reader::kNone && !waits_.has_readers() && (link_.readable() || frames_.has_more()) &&
           ++reads < kReadsInARow);
  if (roles_.reader == Reader::kNone) {
    if (!waits_.has_readers()) {
      arm();
      return;
    }
    waits_.wake_a_reader();
  }
  roles_.update_interest();
}

void Reading::end() {
  roles_.reader = Reader::kEnded;
  roles_.update_interest();
}

}  // namespace execnet::core
