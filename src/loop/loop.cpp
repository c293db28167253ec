#include "loop/loop.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <utility>

#include "base/syscall.hpp"

namespace execnet::loop {
namespace {

constexpr Loop::Id kWakeup = 0;

std::uint32_t to_epoll(std::uint32_t interest) {
  std::uint32_t events = 0;
  if ((interest & kRead) != 0) {
    events |= EPOLLIN;
  }
  if ((interest & kWrite) != 0) {
    events |= EPOLLOUT;
  }
  return events;
}

std::uint32_t from_epoll(std::uint32_t events) {
  std::uint32_t ready = 0;
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) {
    ready |= kRead;
  }
  if ((events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) {
    ready |= kWrite;
  }
  return ready;
}

void control(int epoll, int operation, int fd, std::uint32_t interest, Loop::Id id) {
  epoll_event event{};
  event.events = to_epoll(interest);
  event.data.u64 = id;
  base::check("epoll_ctl", [&] { return ::epoll_ctl(epoll, operation, fd, &event); });
}

// Signals are for the threads of the program: its handlers must never run on this one.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace

Loop::Loop() = default;

// REQUIRES the mutex. What it waits on is made with it: a forked worker that rests needs neither.
void Loop::need_thread() {
  if (thread_.joinable()) {
    return;
  }
  if (!wakeup_) {
    base::Fd epoll(base::check("epoll_create1", [] { return ::epoll_create1(EPOLL_CLOEXEC); }));
    base::Fd wakeup(base::check("eventfd", [] { return ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }));
    control(epoll.get(), EPOLL_CTL_ADD, wakeup.get(), kRead, kWakeup);
    epoll_ = std::move(epoll);
    wakeup_ = std::move(wakeup);
  }
  const SignalsBlocked blocked;  // inherited by the new thread
  thread_ = std::thread([this] { run(); });
}

Loop::~Loop() { stop(); }

void Loop::stop() {
  if (made_here_.in_forked_copy()) {
    base::forget(thread_);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) {  // no other is started from now on
    wake();
    thread_.join();
  }
  decltype(watches_) watches;
  decltype(timers_) timers;
  {
    const std::lock_guard lock(mutex_);
    watches.swap(watches_);  // destroyed without the lock: a handler may own what calls back here
    timers.swap(timers_);
  }
}

Loop::Id Loop::watch(int fd, std::uint32_t interest, Handler handler) {
  if (made_here_.in_forked_copy()) {
    return 0;
  }
  auto shared = std::make_shared<Handler>(std::move(handler));
  const std::lock_guard lock(mutex_);
  const Id id = next_id_++;
  if (stopping_) {
    return id;
  }
  if (interest != 0) {
    need_thread();
    control(epoll_.get(), EPOLL_CTL_ADD, fd, interest, id);
  }
  watches_.emplace(id, Watch{fd, interest, std::move(shared)});
  return id;
}

void Loop::set_interest(Id watch, std::uint32_t interest) {
  if (made_here_.in_forked_copy()) {
    return;
  }
  const std::lock_guard lock(mutex_);
  const auto found = watches_.find(watch);
  if (stopping_ || found == watches_.end() || found->second.interest == interest) {
    return;
  }
  // Without interest the descriptor leaves the set altogether: epoll reports a hang-up even for an
  // empty set of events, and the loop would spin until the one who reads has seen it.
  const int operation = interest == 0 ? EPOLL_CTL_DEL : found->second.interest == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
  need_thread();
  control(epoll_.get(), operation, found->second.fd, interest, watch);
  found->second.interest = interest;
}

void Loop::unwatch(Id watch) {
  if (made_here_.in_forked_copy()) {
    return;
  }
  std::shared_ptr<Handler> handler;  // destroyed after the lock
  const std::lock_guard lock(mutex_);
  const auto found = watches_.find(watch);
  if (found == watches_.end()) {
    return;
  }
  if (found->second.interest != 0) {
    control(epoll_.get(), EPOLL_CTL_DEL, found->second.fd, 0, watch);
  }
  handler = std::move(found->second.handler);
  watches_.erase(found);
}

Loop::Id Loop::call_after(std::chrono::milliseconds delay, Task task) {
  if (made_here_.in_forked_copy()) {
    return 0;
  }
  bool earliest = false;
  Id id = 0;
  {
    const std::lock_guard lock(mutex_);
    id = next_id_++;
    if (stopping_) {
      return id;
    }
    need_thread();
    const auto added = timers_.emplace(base::Clock::now() + delay, std::pair(id, std::move(task)));
    earliest = added == timers_.begin() && std::this_thread::get_id() != thread_.get_id();
  }
  if (earliest) {
    wake();
  }
  return id;
}

void Loop::cancel(Id timer) {
  if (made_here_.in_forked_copy()) {
    return;
  }
  Task task;  // destroyed after the lock
  const std::lock_guard lock(mutex_);
  const auto found =
      std::find_if(timers_.begin(), timers_.end(), [&](const auto& entry) { return entry.second.first == timer; });
  if (found != timers_.end()) {
    task = std::move(found->second.second);
    timers_.erase(found);
  }
}

void Loop::wake() {
  const std::uint64_t one = 1;
  static_cast<void>(!::write(wakeup_.get(), &one, sizeof one));  // full means: already awake
}

int Loop::until_next_timer() {
  const std::lock_guard lock(mutex_);
  if (timers_.empty()) {
    return -1;
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(timers_.begin()->first - base::Clock::now());
  return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 60'000));
}

// Those that are due now: what they add for at once comes after what the descriptors have.
void Loop::run_timers() {
  const auto now = base::Clock::now();
  for (;;) {
    Task task;
    {
      const std::lock_guard lock(mutex_);
      if (stopping_ || timers_.empty() || timers_.begin()->first > now) {
        return;
      }
      task = std::move(timers_.begin()->second.second);
      timers_.erase(timers_.begin());
    }
    task();
  }
}

void Loop::run_handler(Id watch, std::uint32_t ready) {
  std::shared_ptr<Handler> handler;
  {
    const std::lock_guard lock(mutex_);
    const auto found = watches_.find(watch);
    if (stopping_ || found == watches_.end()) {
      return;  // since epoll_wait returned
    }
    handler = found->second.handler;
  }
  (*handler)(ready);
}

bool Loop::stopping() {
  const std::lock_guard lock(mutex_);
  return stopping_;
}

void Loop::run() {
  std::array<epoll_event, 64> events;
  while (!stopping()) {  // looked at after the wake-up was taken, not before: it may be that of stop()
    const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), until_next_timer());
    if (count < 0 && errno != EINTR) {
      base::throw_system_error(errno, "epoll_wait");
    }
    for (int i = 0; i < count; ++i) {
      const epoll_event& event = events.at(static_cast<std::size_t>(i));
      if (event.data.u64 == kWakeup) {
        std::uint64_t drained = 0;
        static_cast<void>(!::read(wakeup_.get(), &drained, sizeof drained));
      } else {
        run_handler(event.data.u64, from_epoll(event.events));
      }
    }
    run_timers();
  }
}

}  // namespace execnet::loop
