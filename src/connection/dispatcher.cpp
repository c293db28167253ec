#include "connection/dispatcher.hpp"

#include <algorithm>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "connection/channel_state.hpp"
#include "connection/connection.hpp"
#include "loop/waiter.hpp"

namespace execnet::core {
namespace {

// The greenlets of this thread that run callbacks; null: the thread itself does.
thread_local std::vector<const void*> run_callbacks_here;

// A greenlet, or the thread if null, runs callbacks as long as this lives.
class RunsCallbacks {
 public:
  explicit RunsCallbacks(const void* greenlet) : greenlet_(greenlet) { run_callbacks_here.push_back(greenlet); }
  ~RunsCallbacks() { std::erase(run_callbacks_here, greenlet_); }
  RunsCallbacks(const RunsCallbacks&) = delete;
  RunsCallbacks& operator=(const RunsCallbacks&) = delete;

 private:
  const void* const greenlet_;
};

}  // namespace

Dispatcher::~Dispatcher() {
  if (connection_.in_forked_copy()) {
    base::forget(thread_);
  } else if (thread_.joinable()) {
    thread_.detach();  // nobody has joined it: it has dropped the last reference to the connection itself
  }
}

bool Dispatcher::start(Lock& lock, bool in_greenlet) {
  static_cast<void>(lock);
  if (ended_ && thread_.joinable()) {  // the connection was gone, and all was run
    thread_.join();
  }
  if (thread_.joinable() || in_greenlet_) {
    return false;
  }
  ended_ = false;
  if (in_greenlet) {
    in_greenlet_ = true;
    thread_of_greenlet_ = std::this_thread::get_id();
    return true;
  }
  // The thread keeps the connection until it ends.
  thread_ =
      loop::start_waiting_thread([this, connection = connection_.shared_from_this()] { run_thread(*connection); });
  return false;
}

// What goes wrong here, for want of memory, say, ends the connection: then nothing has to be waited for, and the calls
// that are left, which tell of the end, are run.
void Dispatcher::run_thread(Connection& connection) {
  const RunsCallbacks here(nullptr);
  while (!ended_) {
    try {
      connection.in_thread_scope([&] {
        auto own_lock = connection.lock();
        run(own_lock, {});
      });
    } catch (const std::exception& error) {
      connection.finish(std::string("its thread for callbacks has failed: ") + error.what());
    }
    auto own_lock = connection.lock();
    ended_ = calls_.empty();  // something may have been pushed while the scope was left
    connection.touch(own_lock, &ended_);
  }
}

void Dispatcher::run_in_greenlet(const base::Wait& wait) {
  const auto connection = connection_.shared_from_this();
  auto lock = connection_.lock();
  const auto leave = [&] {
    greenlet_ = nullptr;
    in_greenlet_ = false;
    connection_.touch(lock, &ended_);
    connection_.touch(lock, &busy_);
  };
  greenlet_ = wait.greenlet;
  const RunsCallbacks here(greenlet_);
  try {
    run(lock, wait);
  } catch (...) {
    leave();
    throw;
  }
  leave();
}

void Dispatcher::push(Lock& lock, std::shared_ptr<ChannelState> channel, std::optional<base::Buffer> item) {
  calls_.push_back({std::move(channel), std::move(item)});
  connection_.touch(lock, this);
}

void Dispatcher::run(Lock& lock, const base::Wait& wait) {
  for (;;) {
    connection_.wait_until(lock, this, wait, [&] { return !calls_.empty() || connection_.gone(lock).has_value(); });
    if (calls_.empty()) {
      return;
    }
    run_next(lock);
  }
}

void Dispatcher::run_next(Lock& lock) {
  Call call = std::move(calls_.front());
  calls_.pop_front();
  busy_ = true;
  try {
    run_one(lock, std::move(call));
  } catch (...) {
    if (!lock.owns_lock()) {
      lock.lock();
    }
    busy_ = false;
    throw;
  }
  busy_ = false;
  if (calls_.empty()) {
    connection_.touch(lock, &busy_);
  }
}

void Dispatcher::run_one(Lock& lock, Call call) {
  ChannelState& channel = *call.channel;
  std::shared_ptr<Callback> callback = channel.callback;
  if (call.item) {
    const StringConfig strings = channel.strings.value_or(connection_.strings(lock));
    if (channel.id != 0) {  // else it is none of the connection's: what the worker prints (gateway/worker_output.hpp)
      connection_.on_taken(lock, channel, call.item->size());
    }
    if (channel.callback_failed) {
      return;
    }
    lock.unlock();
    auto error = callback->on_item(std::move(*call.item), strings);
    lock.lock();
    if (error) {
      channel.callback_failed = true;
      connection_.keep_error(lock, channel, *error);
      connection_.close_channel(lock, call.channel, error);
    }
    return;
  }
  lock.unlock();
  callback->on_end();
  lock.lock();
  channel.callback.reset();
  channel.to_be_told = false;
  connection_.touch(lock, call.channel.get());
  // The callback and what it holds go without the mutex: they may be the program's.
  lock.unlock();
  callback.reset();
  call.channel.reset();
  lock.lock();
}

bool Dispatcher::runs_here(const base::Wait& wait) const {
  return wait.hub != nullptr && in_greenlet_ ? greenlet_ == wait.greenlet
                                             : thread_.get_id() == std::this_thread::get_id();
}

bool Dispatcher::runs_any_here(const base::Wait& wait) {
  const auto& here = run_callbacks_here;
  return std::find(here.begin(), here.end(), wait.hub != nullptr ? wait.greenlet : nullptr) != here.end();
}

bool Dispatcher::is_over(const Lock& lock) const {
  static_cast<void>(lock);
  return ended_ || !(thread_.joinable() || in_greenlet_);
}

bool Dispatcher::wait_idle(Lock& lock, const base::Wait& wait) {
  if (is_over(lock) || runs_here(wait)) {
    return true;
  }
  return connection_.wait_until(lock, &busy_, wait, [&] { return is_over(lock) || (calls_.empty() && !busy_); });
}

void Dispatcher::join(const base::Wait& wait) {
  if (made_here_.in_forked_copy()) {
    return;
  }
  auto lock = connection_.lock();
  if (runs_any_here(wait)) {
    return;
  }
  if (in_greenlet_) {
    const bool blocked = wait.hub == nullptr && thread_of_greenlet_ == std::this_thread::get_id();
    if (!blocked) {
      connection_.wait_until(lock, &ended_, wait, [&] { return !in_greenlet_; });
    }
  } else if (thread_.joinable() && connection_.wait_until(lock, &ended_, wait, [&] { return ended_; })) {
    std::thread ended = std::move(thread_);  // of those that wait here the first joins it
    lock.unlock();
    if (ended.joinable()) {
      ended.join();
    }
  }
}

void Dispatcher::run_rest() {
  if (made_here_.in_forked_copy()) {
    return;
  }
  auto lock = connection_.lock();
  if (in_greenlet_ && thread_of_greenlet_ == std::this_thread::get_id()) {
    while (!calls_.empty() && !busy_) {
      run_next(lock);
    }
  }
}

}  // namespace execnet::core
