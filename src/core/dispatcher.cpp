#include "core/dispatcher.hpp"

#include <utility>

#include "core/channel_state.hpp"
#include "core/connection.hpp"

namespace execnet::core {

Dispatcher::~Dispatcher() {
  if (thread_.joinable()) {
    // Nobody has joined it: it has dropped the last reference to the connection itself, or is
    // a thread of the process that this one was forked from.
    thread_.detach();
  }
}

void Dispatcher::start(Lock& lock) {
  static_cast<void>(lock);
  if (ended_) {  // the connection was gone, and all was run
    thread_.join();
    ended_ = false;
  }
  if (!thread_.joinable()) {
    // The thread keeps the connection until it ends.
    thread_ = std::thread([this, connection = connection_.shared_from_this()] { run(); });
  }
}

void Dispatcher::push(Lock& lock, std::shared_ptr<ChannelState> channel, std::optional<base::Buffer> item) {
  calls_.push_back({std::move(channel), std::move(item)});
  connection_.touch(lock, this);
}

void Dispatcher::run() {
  auto lock = connection_.lock();
  for (;;) {
    connection_.wait_until(lock, this, {}, [&] { return !calls_.empty() || connection_.gone(lock).has_value(); });
    if (calls_.empty()) {
      break;
    }
    Call call = std::move(calls_.front());
    calls_.pop_front();
    busy_ = true;
    run_one(lock, std::move(call));
    busy_ = false;
    if (calls_.empty()) {
      connection_.touch(lock, &busy_);
    }
  }
  ended_ = true;
  connection_.touch(lock, &ended_);
}

void Dispatcher::run_one(Lock& lock, Call call) {
  ChannelState& channel = *call.channel;
  std::shared_ptr<Callback> callback = channel.callback;
  if (call.item) {
    if (channel.callback_failed) {
      return;
    }
    const StringConfig strings = channel.strings.value_or(connection_.strings(lock));
    lock.unlock();
    auto error = callback->on_item(std::move(*call.item), strings);
    lock.lock();
    if (error) {
      channel.callback_failed = true;
      channel.errors.push_back(*error);
      connection_.close_channel(lock, call.channel, error);
    }
    return;
  }
  lock.unlock();
  callback->on_end();
  lock.lock();
  channel.callback.reset();
  connection_.touch(lock, call.channel.get());
  // The callback and what it holds go without the mutex: they may be the program's.
  lock.unlock();
  callback.reset();
  call.channel.reset();
  lock.lock();
}

bool Dispatcher::wait_idle(Lock& lock, const base::Wait& wait) {
  if (!thread_.joinable() || is_this_thread()) {
    return true;
  }
  return connection_.wait_until(lock, &busy_, wait, [&] { return ended_ || (calls_.empty() && !busy_); });
}

void Dispatcher::join(const base::Deadline& deadline) {
  if (made_here_.in_forked_copy()) {
    return;
  }
  {
    auto lock = connection_.lock();
    if (!thread_.joinable() || is_this_thread() ||
        !connection_.wait_until(lock, &ended_, {.deadline = deadline}, [&] { return ended_; })) {
      return;
    }
  }
  thread_.join();
}

}  // namespace execnet::core
