// The channels of one remote_exec on several gateways, used as one. A value.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <utility>
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

// When a call of it fails at one of the channels, the error has what the call had got until then: Error::partial().
class EXECNET_EXPORT MultiChannel {
 public:
  explicit MultiChannel(std::vector<Channel> channels) : channels_(std::move(channels)) {}

  [[nodiscard]] std::size_t size() const { return channels_.size(); }
  [[nodiscard]] const Channel& operator[](std::size_t index) const { return channels_.at(index); }
  [[nodiscard]] auto begin() const { return channels_.begin(); }
  [[nodiscard]] auto end() const { return channels_.end(); }

  // Sends the item to every channel.
  void send_each(const Value& item) const;
  // One item from every channel, in the order of the channels. Throws as Channel::receive, at the first channel that
  // has none; those behind it keep theirs. DataFormatError for an item that is no T, when all were received.
  template <typename T = Value>
  [[nodiscard]] std::vector<T> receive_each() const;
  // From now on the items of all channels go to the queue, and the end of each.
  [[nodiscard]] ReceiveQueue make_receive_queue() const { return ReceiveQueue(channels_); }
  // Waits until every channel is closed, and then throws the first error.
  void waitclose() const;

 private:
  [[nodiscard]] std::vector<std::pair<Channel, Value>> receive_pairs() const;

  std::vector<Channel> channels_;
};

// What a call for several channels or gateways had got when it failed, so that nothing of it is lost.
//   try {
//     items = channels.receive_each();
//   } catch (const execnet::GatewayGone& error) {
//     for (const auto& [channel, item] : error.partial()->received) log(channel.id(), item);
//   }
struct Partial {
  // Those that the call was done for, in order. Of Group::remote_exec they are the ones that it has made, of waitclose
  // those that were closed without an error. Any other call stops at the one behind them.
  std::vector<Channel> channels = {};
  std::vector<std::pair<Channel, Value>> received = {};  // of receive_each: what came from each of them
  std::optional<ReceiveQueue> queue = std::nullopt;      // of make_receive_queue: where their items go
};

template <typename T>
std::vector<T> MultiChannel::receive_each() const {
  auto received = receive_pairs();
  std::vector<T> items;
  items.reserve(received.size());
  try {
    for (const auto& [channel, value] : received) {
      items.push_back(value.template as<T>());
    }
  } catch (Error& error) {
    error.set_partial(std::make_shared<const Partial>(Partial{.channels = channels_, .received = std::move(received)}));
    throw;
  }
  return items;
}

}  // namespace execnet
