#include "loop/loop.hpp"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <exception>
#include <new>
#include <string_view>
#include <utility>

#include "base/syscall.hpp"
#include "base/thread.hpp"

namespace execnet::loop {
namespace {

constexpr Loop::Id kWakeup = 0;
constexpr int kMostAtOnce = 64;
constexpr std::chrono::milliseconds kEndsWithin{200};  // else it has not been woken
constexpr int kLooksAround = 20;                       // milliseconds: so often, when it cannot be woken

// What interrupts the loop thread where nothing else can. The last one, SIGRTMAX, is taken by debuggers.
int interrupting_signal() { return SIGRTMAX - 1; }

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

short to_poll(std::uint32_t interest) {
  return static_cast<short>(((interest & kRead) != 0 ? POLLIN : 0) | ((interest & kWrite) != 0 ? POLLOUT : 0));
}

std::uint32_t from_poll(short events) {
  std::uint32_t ready = 0;
  if ((events & (POLLIN | POLLHUP | POLLERR | POLLNVAL)) != 0) {
    ready |= kRead;
  }
  if ((events & (POLLOUT | POLLHUP | POLLERR | POLLNVAL)) != 0) {
    ready |= kWrite;
  }
  return ready;
}

bool control(int epoll, int operation, int fd, std::uint32_t interest, Loop::Id id) {
  epoll_event event{};
  event.events = to_epoll(interest);
  event.data.u64 = id;
  return ::epoll_ctl(epoll, operation, fd, &event) == 0;
}

void report(const char* what) {
  const std::string_view begin = "execnet: a handler of the loop has failed: ";
  std::array<iovec, 3> parts{{{const_cast<char*>(begin.data()), begin.size()},
                              {const_cast<char*>(what), std::strlen(what)},
                              {const_cast<char*>("\n"), 1}}};
  static_cast<void>(!::writev(STDERR_FILENO, parts.data(), static_cast<int>(parts.size())));
}

// Makes a wait of this thread end with EINTR, now or when it begins next.
void interrupt(pid_t thread) {
  const int signal = interrupting_signal();
  struct sigaction action{};
  if (::sigaction(signal, nullptr, &action) == 0 &&
      (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN)) {  // any handler will do
    action = {};
    action.sa_handler = [](int) {};
    ::sigaction(signal, &action, nullptr);
  }
  ::syscall(SYS_tgkill, ::getpid(), thread, signal);
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
    if (!control(epoll.get(), EPOLL_CTL_ADD, wakeup.get(), kRead, kWakeup)) {
      base::throw_system_error(errno, "epoll_ctl");
    }
    ready_.reserve(kMostAtOnce);
    epoll_ = std::move(epoll);
    wakeup_ = std::move(wakeup);
  }
  const SignalsBlocked blocked;  // inherited by the new thread
  thread_ = base::start_thread([this] { run(); });
}

void Loop::start() {
  if (made_here_.in_forked_copy()) {
    return;
  }
  const std::lock_guard lock(mutex_);
  if (!stopping_) {
    need_thread();
  }
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
    join();
  }
  decltype(watches_) watches;
  decltype(timers_) timers;
  {
    const std::lock_guard lock(mutex_);
    watches.swap(watches_);  // destroyed without the lock: a handler may own what calls back here
    timers.swap(timers_);
  }
}

// The descriptor that wakes it may be another's by now, if the program has closed all there were and has opened others.
void Loop::join() {
  {
    std::unique_lock lock(mutex_);
    while (!ended_.wait_for(lock, kEndsWithin, [this] { return has_ended_; })) {
      on_closed_descriptors();
    }
  }
  thread_.join();
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
  }
  const auto added = watches_.emplace(id, Watch{fd, 0, std::move(shared)}).first;
  change_interest(id, added->second, interest);
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
  need_thread();
  change_interest(watch, found->second, interest);
}

// REQUIRES the mutex. Without interest the descriptor leaves the set altogether: epoll reports a hang-up even for an
// empty set of events, and the loop would spin until the one who reads has seen it.
void Loop::change_interest(Id id, Watch& watch, std::uint32_t interest) {
  const bool was_polled = watch.interest != 0 && !watch.in_epoll;
  if (interest == 0) {
    if (std::exchange(watch.in_epoll, false)) {
      control(epoll_.get(), EPOLL_CTL_DEL, watch.fd, 0, id);  // that it fails means it is not there any more
    }
  } else if (!was_polled) {
    const int operation = watch.in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    watch.in_epoll = control(epoll_.get(), operation, watch.fd, interest, id);
  }
  watch.interest = interest;
  const bool is_polled = interest != 0 && !watch.in_epoll;
  polled_ += is_polled ? 1 : 0;
  polled_ -= was_polled ? 1 : 0;
  if ((is_polled || was_polled) && !is_loop_thread()) {
    wake();  // it has another set to wait for
  }
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
  change_interest(watch, found->second, 0);
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
    earliest = added == timers_.begin() && !is_loop_thread();
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
  if (deaf_) {
    return;
  }
  const std::uint64_t one = 1;
  if (::write(wakeup_.get(), &one, sizeof one) < 0 && errno == EBADF) {  // full means: already awake
    on_closed_descriptors();
  }
}

void Loop::on_closed_descriptors() {
  deaf_ = true;
  if (const pid_t thread = thread_id_; thread != 0) {  // else it sees that it is deaf before it waits
    interrupt(thread);
  }
}

int Loop::until_next_timer() {
  if (deaf_) {
    return kLooksAround;
  }
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
    try {
      task();
    } catch (const std::exception& error) {
      report(error.what());
    }
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
  try {
    (*handler)(ready);
  } catch (const std::exception& error) {
    report(error.what());
    unwatch(watch);  // else it would be called again and again
  }
}

void Loop::wait() {
  ready_.clear();
  if (polled_ != 0) {
    wait_with_poll();
    return;
  }
  std::array<epoll_event, kMostAtOnce> events;
  const int count = ::epoll_pwait(epoll_.get(), events.data(), kMostAtOnce, until_next_timer(), &while_waiting_);
  if (count < 0 && errno != EINTR) {
    leave_epoll();
  }
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events.at(static_cast<std::size_t>(i));
    ready_.push_back({event.data.u64, from_epoll(event.events)});
  }
}

// For what epoll does not have. What it has is asked for without waiting.
void Loop::wait_with_poll() {
  std::vector<pollfd> fds{{epoll_.get(), POLLIN, 0}, {deaf_ ? -1 : wakeup_.get(), POLLIN, 0}};
  std::vector<Id> ids{kWakeup, kWakeup};
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, watch] : watches_) {
      if (watch.interest != 0 && !watch.in_epoll) {
        fds.push_back({watch.fd, to_poll(watch.interest), 0});
        ids.push_back(id);
      }
    }
  }
  const int timeout = until_next_timer();
  const auto deadline = timeout < 0 ? base::Deadline() : base::Clock::now() + std::chrono::milliseconds(timeout);
  if (base::poll_once(fds, deadline, &while_waiting_) <= 0) {
    return;
  }
  deaf_ = deaf_ || (fds[1].revents & POLLNVAL) != 0;
  for (std::size_t i = 1; i < fds.size(); ++i) {
    if (fds[i].revents != 0) {
      ready_.push_back({ids[i], from_poll(fds[i].revents)});
    }
    if ((fds[i].revents & POLLNVAL) != 0) {  // closed by the program: its handler is told, once
      set_interest(ids[i], 0);
    }
  }
  std::array<epoll_event, kMostAtOnce> events;
  const int count = fds[0].revents == POLLIN ? ::epoll_wait(epoll_.get(), events.data(), kMostAtOnce, 0) : 0;
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events.at(static_cast<std::size_t>(i));
    ready_.push_back({event.data.u64, from_epoll(event.events)});
  }
}

// The program has closed our descriptors under our feet: all there were, most likely, and with them what is watched.
void Loop::leave_epoll() {
  const std::lock_guard lock(mutex_);
  static_cast<void>(epoll_.release());  // the number may be another's by now
  for (auto& [id, watch] : watches_) {
    if (std::exchange(watch.in_epoll, false)) {
      ++polled_;
    }
  }
  ++polled_;  // for good
}

bool Loop::stopping() {
  const std::lock_guard lock(mutex_);
  return stopping_;
}

void Loop::run() {
  thread_id_ = static_cast<pid_t>(::syscall(SYS_gettid));
  sigfillset(&while_waiting_);
  sigdelset(&while_waiting_, interrupting_signal());
  while (!stopping()) {  // looked at after the wake-up was taken, not before: it may be that of stop()
    try {
      wait();
    } catch (const std::bad_alloc&) {
      ::poll(nullptr, 0, kLooksAround);  // until there is memory again; nothing is lost
    }
    for (const Ready& one : ready_) {
      if (one.watch == kWakeup) {
        std::uint64_t drained = 0;
        static_cast<void>(!::read(wakeup_.get(), &drained, sizeof drained));
      } else {
        run_handler(one.watch, one.ready);
      }
    }
    run_timers();
  }
  const std::lock_guard lock(mutex_);
  has_ended_ = true;
  ended_.notify_one();
}

}  // namespace execnet::loop
