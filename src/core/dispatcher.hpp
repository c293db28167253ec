// Runs the callbacks of a connection's channels, in the order in which their items arrived, on one
// thread of its own: no user code on the loop thread. A callback may block, and may use any gateway.
//
// Owner: its connection; whoever ends the connection also calls join(). All methods but join() are
// called with the connection's mutex held. While it has nothing to run the thread waits like any
// other, and so is the one who reads: a message goes from the socket to its callback without a hop.
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

  // Starts the thread if there is none. It ends when the connection is gone and all is run.
  void start(Lock& lock);
  // Queues an item of the channel for its callback; none: its end.
  void push(Lock& lock, std::shared_ptr<ChannelState> channel, std::optional<base::Buffer> item);
  // Waits until nothing is left to run; false if the deadline passed first. On the dispatcher thread
  // itself, that is from within a callback, it does not wait.
  bool wait_idle(Lock& lock, const base::Wait& wait);
  [[nodiscard]] bool is_this_thread() const { return thread_.get_id() == std::this_thread::get_id(); }

  // Waits for the end of the thread, at the longest until the deadline: a callback that blocks for
  // ever is left behind. REQUIRES: the connection is finished; its mutex is not held.
  void join(const base::Deadline& deadline);

 private:
  struct Call {
    std::shared_ptr<ChannelState> channel;
    std::optional<base::Buffer> item;
  };

  void run();
  void run_one(Lock& lock, Call call);

  const base::MadeHere made_here_;
  Connection& connection_;
  std::thread thread_;
  std::deque<Call> calls_;
  bool busy_ = false;   // a callback runs
  bool ended_ = false;  // the thread is past its last look at this object's connection
};

}  // namespace execnet::core
