// What a thread sleeps on while another thread does the reading or writing it waits for: an
// eventfd, so that the sleep can also watch a socket and ends when a signal arrives, which a
// condition variable cannot do. One per thread, made when the thread first waits.
#pragma once

#include "base/fd.hpp"
#include "base/fork.hpp"

namespace execnet::loop {

class Waiter {
 public:
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

}  // namespace execnet::loop
