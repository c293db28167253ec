// What a thread sleeps on while another thread does the reading or writing it waits for: an
// eventfd, so that the sleep can also watch a socket and ends when a signal arrives, which a
// condition variable cannot do. One per thread, made when the thread first waits.
#pragma once

#include <functional>
#include <thread>

#include "base/fd.hpp"
#include "base/fork.hpp"

namespace execnet::loop {

class Waiter {
 public:
  // Throws std::system_error if there is no descriptor for it, as of_this_thread() does if there was none yet.
  Waiter();
  static Waiter& of_this_thread();

  // Readable after wake().
  [[nodiscard]] int fd() const { return eventfd_.get(); }
  // Ends the present or else the next sleep of the owning thread. Any thread.
  void wake() const;
  // Forgets wake-ups. Owning thread.
  void clear() const;

 private:
  base::MadeHere made_here_;
  base::Fd eventfd_;
};

// Starts a thread that will wait. It has its waiter from the start: the one who asks for the thread is told if there is
// no descriptor for it, or no thread (std::system_error). In the new thread there would be nobody to tell.
// REQUIRES: `body` does not throw.
std::thread start_waiting_thread(std::function<void()> body);

}  // namespace execnet::loop
