// Runs the callbacks of a connection's channels, in the order in which their items arrived, on one
// thread of its own: no user code on the loop thread. A callback may block, and may use any gateway.
//
// Owner: its connection; whoever ends the connection also calls join(). All methods but join() are
// called with the connection's mutex held. While it has nothing to run the thread waits like any
// other, and so is the one who reads, unless others converse: a message goes from the socket to its callback without a
// hop.
//
// Where the first callback is given by a greenlet (base::Hub), a greenlet of the same thread takes the place of
// the dispatcher's thread, so that callbacks can use what greenlets share.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include <execnet/dump.hpp>

#include "base/buffer.hpp"
#include "base/fork.hpp"
#include "base/wait.hpp"

namespace execnet::core {

class Connection;
struct ChannelState;

// What a channel's items are given to. Called on the dispatcher thread, without the mutex, one call
// at a time.
class Callback {
 public:
  Callback() = default;
  virtual ~Callback() = default;
  Callback(const Callback&) = delete;
  Callback& operator=(const Callback&) = delete;

  // `payload` is an encoded value. What it returns is the error that ends the channel.
  virtual std::optional<std::string> on_item(base::Buffer payload, StringConfig strings) = 0;
  // After the last item, exactly once.
  virtual void on_end() = 0;
};

class Dispatcher {
 public:
  using Lock = std::unique_lock<std::mutex>;

  explicit Dispatcher(Connection& connection) : connection_(connection) {}
  ~Dispatcher();
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;

  // Sees to it that the calls are run, by a thread until the connection is gone and all is run. Throws
  // std::system_error if there is no thread to be had, or no descriptor for it. True when
  // `in_greenlet` is asked for and the caller is to have a new greenlet of its hub call run_in_greenlet().
  [[nodiscard]] bool start(Lock& lock, bool in_greenlet);
  // REQUIRES: start() has asked for it; the mutex is not held. What the hub throws passes through; then there is
  // nobody to run the calls until the next start().
  void run_in_greenlet(const base::Wait& wait);
  // Queues an item of the channel for its callback; none: its end.
  void push(Lock& lock, std::shared_ptr<ChannelState> channel, std::optional<base::Buffer> item);
  // Whether nothing runs here any more, or yet.
  [[nodiscard]] bool is_over(const Lock& lock) const;
  // Waits until nothing is left to run; false if the deadline passed first. Within a callback it does not wait.
  bool wait_idle(Lock& lock, const base::Wait& wait);
  // Whether a callback is what waits, on the dispatcher's thread or in its greenlet.
  [[nodiscard]] bool runs_here(const base::Wait& wait) const;
  // The same for a callback of any connection.
  [[nodiscard]] static bool runs_any_here(const base::Wait& wait);

  // Waits for the end of the thread or greenlet, at the longest until the deadline: a callback that blocks for
  // ever is left behind. Any number of threads may wait. Within a callback, of whatever connection, it does not wait:
  // two callbacks that terminate the gateways of each other would wait for each other's end. REQUIRES: the connection
  // is finished; its mutex is not held.
  void join(const base::Wait& wait);
  // Runs what is left in place of a greenlet that the calling thread keeps from running, if it does. REQUIRES: as
  // join().
  void run_rest();

 private:
  struct Call {
    std::shared_ptr<ChannelState> channel;
    std::optional<base::Buffer> item;
  };

  void run(Lock& lock, const base::Wait& wait);
  void run_thread(Connection& connection);
  void run_next(Lock& lock);
  void run_one(Lock& lock, Call call);

  const base::MadeHere made_here_;
  Connection& connection_;
  std::thread thread_;
  std::deque<Call> calls_;
  bool busy_ = false;   // a callback runs
  bool ended_ = false;  // the thread is past its last look at this object's connection

  bool in_greenlet_ = false;              // there is one, or there will be, instead of a thread
  const void* greenlet_ = nullptr;        // which one
  std::thread::id thread_of_greenlet_{};  // on whose hub it runs
};

}  // namespace execnet::core
