// Who waits for something of a connection, and for what: threads and greenlets, each for one topic.
//
// A topic is an address that stands for what is waited for: a channel, a message to be written, the connection itself.
// Who changes such a thing calls touch() with its topic.
//
// Owner: its connection. All methods are called with the connection's mutex held.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/wait.hpp"
#include "loop/waiter.hpp"

namespace execnet::core {

// Holds the mutex of a connection.
using Lock = std::unique_lock<std::mutex>;

class Waits {
 public:
  // A thread that waits. It lives on the stack of that thread.
  class Thread {
   public:
    // REQUIRES: called by the thread itself.
    explicit Thread(const void* topic) : waiter_(loop::Waiter::of_this_thread()), topic_(topic) {}
    Thread(const Thread&) = delete;
    Thread& operator=(const Thread&) = delete;

    [[nodiscard]] const loop::Waiter& waiter() const { return waiter_; }
    // Whether waking it makes somebody read the stream.
    [[nodiscard]] bool may_read() const { return asleep_ && !stands_back_; }
    [[nodiscard]] bool stands_back() const { return stands_back_; }
    // From now on it leaves the reading to others.
    void stand_back() { stands_back_ = true; }

    void falls_asleep() { asleep_ = true; }
    void is_awake() { asleep_ = false; }
    // Forgets wake-ups that have come.
    void clear() { waiter_.clear(); }

   private:
    friend class Waits;

    const loop::Waiter& waiter_;
    const void* const topic_;
    bool asleep_ = false;
    bool stands_back_ = false;
  };

  // A greenlet that waits. What others need to know of it is not on its stack, which may be elsewhere meanwhile.
  class Greenlet {
   public:
    // Enters; the destructor leaves, with the lock held again.
    Greenlet(Waits& waits, Lock& lock, const void* topic);
    ~Greenlet();
    Greenlet(const Greenlet&) = delete;
    Greenlet& operator=(const Greenlet&) = delete;

    // Lets other greenlets run, without the lock, until there may be something new or the deadline has passed.
    // REQUIRES: wait.hub is set.
    void sleep(const base::Wait& wait);

   private:
    struct Bell;
    friend class Waits;

    Waits& waits_;
    Lock& lock_;
    const std::shared_ptr<Bell> bell_;
  };

  void enter(Thread& thread) { threads_.push_back(&thread); }
  void leave(Thread& thread) { std::erase(threads_, &thread); }

  // Wakes those that wait for `topic`, or all. A thread that is awake looks again before it sleeps.
  void touch(const void* topic);
  void touch_all();
  void wake(Thread& thread);

  // Whether a thread waits that reads the stream when it gets the chance.
  [[nodiscard]] bool has_readers() const;
  // Wakes one of those. If none of them sleeps, each will look before it does.
  void wake_a_reader();
  // How many threads that may read were woken, ever.
  [[nodiscard]] std::uint64_t woken() const { return woken_; }

  [[nodiscard]] bool has_greenlets() const { return !greenlets_.empty(); }

 private:
  std::vector<Thread*> threads_;
  std::vector<std::shared_ptr<Greenlet::Bell>> greenlets_;
  std::uint64_t woken_ = 0;
};

}  // namespace execnet::core
