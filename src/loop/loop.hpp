// One thread that watches descriptors and timers for everybody who is not waiting himself.
//
// Owner: a group (or a worker), which calls stop() before it lets go; stop() joins the thread.
// The thread is started when there is first something to watch or to wait for. Any thread may call any method. Handlers
// run on the loop thread, one at a time, with no lock of the loop held; they must not block and never run user code. In
// a process forked from the one that made it a loop does nothing: it has no thread there, and its epoll set is shared
// with the parent.
//
// Only starting the thread can fail, for want of descriptors or of a thread: start() is for those who later must not
// fail. From then on no call throws, but for std::bad_alloc where something is added. What the kernel does not take
// into the epoll set, for want of memory or beyond fs.epoll.max_user_watches, is watched by poll(2): slower, and of no
// consequence for anybody. Handlers and tasks catch what they throw, and tell whoever waits for them. One that does
// not is a mistake of ours: it is reported on stderr, and its watch ends.
//
// Why not an event-loop library: a caller that waits for a message takes the reading of its
// connection over from this thread and gives it back later (see connection/connection.hpp). That needs
// interest in a descriptor to be switched on and off from other threads, in one system call, at
// any time - also while this thread sleeps in epoll_wait. Libraries own their descriptors.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/fd.hpp"
#include "base/fork.hpp"
#include "base/wait.hpp"

namespace execnet::loop {

// What to be told of. kHangup comes with either, as epoll does.
inline constexpr std::uint32_t kRead = 1;
inline constexpr std::uint32_t kWrite = 2;

class Loop {
 public:
  using Handler = std::function<void(std::uint32_t ready)>;
  using Task = std::function<void()>;
  using Id = std::uint64_t;  // of a watch or a timer; never used twice

  Loop();
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  // Starts the thread, if there is none yet. Throws std::system_error.
  void start();

  // Calls `handler` on the loop thread whenever the descriptor is ready for one of `interest`
  // (kRead, kWrite; 0: for nothing yet). REQUIRES: fd stays open until unwatch.
  Id watch(int fd, std::uint32_t interest, Handler handler);
  void set_interest(Id watch, std::uint32_t interest);
  // No call of the handler begins after this. One may be under way on the loop thread.
  void unwatch(Id watch);

  // Runs `task` once on the loop thread, that much later.
  Id call_after(std::chrono::milliseconds delay, Task task);
  void cancel(Id timer);

  // The program has closed descriptors of ours, all there were most likely: whoever watches one is told.
  void on_closed_descriptors();

  // Ends the loop thread and waits for it. Handlers are dropped; later calls do nothing.
  // REQUIRES: not called on the loop thread.
  void stop();

 private:
  struct Watch {
    int fd;
    std::uint32_t interest;
    std::shared_ptr<Handler> handler;
    bool in_epoll = false;
  };
  struct Ready {
    Id watch;
    std::uint32_t ready;
  };

  // REQUIRES the mutex.
  void need_thread();
  void change_interest(Id id, Watch& watch, std::uint32_t interest);
  [[nodiscard]] bool is_loop_thread() const { return std::this_thread::get_id() == thread_.get_id(); }
  void run();
  [[nodiscard]] bool stopping();
  void wake();
  void join();
  void run_timers();
  void run_handler(Id watch, std::uint32_t ready);
  [[nodiscard]] int until_next_timer();
  // Waits until there is something to do; then ready_ has what is ready.
  void wait();
  void wait_with_poll();
  void leave_epoll();

  const base::MadeHere made_here_{};
  base::Fd epoll_;
  base::Fd wakeup_;  // eventfd: a timer was added, or stop
  std::mutex mutex_;
  bool stopping_ = false;
  bool has_ended_ = false;  // the loop thread
  std::condition_variable ended_;
  Id next_id_ = 1;
  std::unordered_map<Id, Watch> watches_;
  std::atomic<bool> deaf_{false};       // the program has closed wakeup_: it looks around now and then
  std::atomic<pid_t> thread_id_{0};     // 0: it does not run yet
  sigset_t while_waiting_{};            // the loop thread's: the signals blocked while it waits
  std::vector<Ready> ready_;            // the loop thread's
  std::atomic<std::size_t> polled_{0};  // of them, those with an interest that epoll does not have
  std::multimap<base::Clock::time_point, std::pair<Id, Task>> timers_;
  std::thread thread_;
};

}  // namespace execnet::loop
