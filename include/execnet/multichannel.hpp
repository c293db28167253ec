// The channels of one remote_exec on several gateways, used as one. A value.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include <execnet/channel.hpp>
#include <execnet/export.hpp>

namespace execnet {

// The items of several channels, in the order in which they arrive. Copies are the same queue. Any thread may call any
// method.
class EXECNET_EXPORT ReceiveQueue {
 public:
  struct Item {
    Channel channel;
    std::optional<Value> value;  // none: the channel has ended
  };

  // Made by MultiChannel::make_receive_queue.
  explicit ReceiveQueue(const std::vector<Channel>& channels);

  // The next item. Waits for it, at most `timeout`; throws TimeoutError.
  [[nodiscard]] Item get(std::optional<Seconds> timeout = std::nullopt) const;
  [[nodiscard]] bool empty() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

class EXECNET_EXPORT MultiChannel {
 public:
  explicit MultiChannel(std::vector<Channel> channels) : channels_(std::move(channels)) {}

  [[nodiscard]] std::size_t size() const { return channels_.size(); }
  [[nodiscard]] const Channel& operator[](std::size_t index) const { return channels_.at(index); }
  [[nodiscard]] auto begin() const { return channels_.begin(); }
  [[nodiscard]] auto end() const { return channels_.end(); }

  // Sends the item to every channel.
  void send_each(const Value& item) const;
  // One item from every channel, in the order of the channels. Throws as Channel::receive.
  template <typename T = Value>
  [[nodiscard]] std::vector<T> receive_each() const {
    std::vector<T> items;
    items.reserve(channels_.size());
    for (const Channel& channel : channels_) {
      items.push_back(channel.receive<T>());
    }
    return items;
  }
  // From now on the items of all channels go to the queue, and the end of each.
  [[nodiscard]] ReceiveQueue make_receive_queue() const { return ReceiveQueue(channels_); }
  // Waits until every channel is closed, and then throws the first error.
  void waitclose() const;

 private:
  std::vector<Channel> channels_;
};

}  // namespace execnet
