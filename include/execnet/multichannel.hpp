// The channels of one remote_exec on several gateways, used as one. A value.
#pragma once

#include <cstddef>
#include <optional>
#include <vector>

#include <execnet/channel.hpp>
#include <execnet/export.hpp>

namespace execnet {

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
  // Waits until every channel is closed; throws the first error of all after that.
  void waitclose() const;

 private:
  std::vector<Channel> channels_;
};

}  // namespace execnet
