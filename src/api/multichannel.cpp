#include <execnet/multichannel.hpp>

#include <condition_variable>
#include <deque>
#include <exception>
#include <execnet/error.hpp>
#include <mutex>
#include <utility>

#include "api/keeping.hpp"
#include "base/wait.hpp"

namespace execnet {

struct ReceiveQueue::State {
  std::mutex mutex;
  std::condition_variable came;
  std::deque<Item> items;  // guarded by mutex

  void put(Item item) {
    {
      const std::lock_guard lock(mutex);
      items.push_back(std::move(item));
    }
    came.notify_one();
  }
};

ReceiveQueue::ReceiveQueue(const std::vector<Channel>& channels) : state_(std::make_shared<State>()) {
  Partial partial;
  keeping(partial, [&] {
    partial.queue = *this;
    for (const Channel& channel : channels) {
      channel.setcallback([state = state_, channel](const Value& value) { state->put({channel, value}); },
                          [state = state_, channel] { state->put({channel, std::nullopt}); });
      partial.channels.push_back(channel);
    }
  });
}

ReceiveQueue::Item ReceiveQueue::get(std::optional<Seconds> timeout) const {
  const base::Deadline deadline = base::deadline_after(timeout);
  std::unique_lock lock(state_->mutex);
  const auto there = [&] { return !state_->items.empty(); };
  if (!deadline) {
    state_->came.wait(lock, there);
  } else if (!state_->came.wait_until(lock, *deadline, there)) {
    throw TimeoutError("no item came in time");
  }
  Item item = std::move(state_->items.front());
  state_->items.pop_front();
  return item;
}

bool ReceiveQueue::empty() const {
  const std::lock_guard lock(state_->mutex);
  return state_->items.empty();
}

void MultiChannel::send_each(const Value& item) const {
  Partial partial;
  keeping(partial, [&] {
    for (const Channel& channel : channels_) {
      channel.send(item);
      partial.channels.push_back(channel);
    }
  });
}

std::vector<std::pair<Channel, Value>> MultiChannel::receive_pairs() const {
  Partial partial;
  keeping(partial, [&] {
    for (const Channel& channel : channels_) {
      partial.received.emplace_back(channel, channel.receive());
      partial.channels.push_back(channel);
    }
  });
  return std::move(partial.received);
}

void MultiChannel::waitclose() const {
  Partial partial;
  keeping(partial, [&] {
    std::exception_ptr first;
    for (const Channel& channel : channels_) {
      try {
        channel.waitclose();
        partial.channels.push_back(channel);
      } catch (const Error&) {
        first = first ? first : std::current_exception();
      }
    }
    if (first) {
      std::rethrow_exception(first);
    }
  });
}

}  // namespace execnet
