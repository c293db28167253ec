// Which channels a connection has: their ids, and what is kept for them.
//
// The ids of the coordinator are odd, those of the worker even. A channel of the other side exists from its first frame
// on, since the reference to it may still lie undecoded in another channel's queue. It is forgotten when both ends have
// closed it, the program has no handle, and nothing is kept that the program could still receive. That an id is over is
// remembered, so that nothing is ever delivered to a stranger.
//
// Owner: its connection. All methods are called with the connection's mutex held.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include <execnet/dump.hpp>

#include "connection/channel_state.hpp"
#include "connection/id_set.hpp"
#include "connection/limits.hpp"

namespace execnet::core {

enum class Side : std::uint8_t { kCoordinator, kWorker };

class Channels {
 public:
  // What is counted for an item beside its bytes.
  static constexpr std::size_t kItemCost = 64;

  explicit Channels(Side side) : side_(side), next_id_(side == Side::kCoordinator ? 1 : 2) {}

  [[nodiscard]] bool is_ours(std::uint32_t id) const { return id % 2 == (side_ == Side::kCoordinator ? 1U : 0U); }
  // The channel of that id if there is one; null else.
  [[nodiscard]] std::shared_ptr<ChannelState> find(std::uint32_t id) const;
  // The channel of an id in a frame, made if the other side may have made it; null if it is over. Throws ProtocolError
  // for id 0.
  std::shared_ptr<ChannelState> of_frame(std::uint32_t id);
  // A new channel of this side's making.
  std::shared_ptr<ChannelState> make();
  // A channel that is over, for a second reference to it.
  [[nodiscard]] std::shared_ptr<ChannelState> over(std::uint32_t id) const;

  // The program has a handle for it, or has let go of one.
  void on_referenced(ChannelState& state);
  void on_unreferenced() { --referenced_; }
  // Nobody will receive its items.
  void drop_items(ChannelState& state);
  // To be called when one of the conditions may hold from now on.
  void forget_if_over(const ChannelState& state);

  // So many bytes of an item or an error text are kept for a channel, or kept no longer.
  void on_kept(std::size_t bytes) { held_ += bytes + kItemCost; }
  void on_taken(std::size_t bytes) { held_ -= bytes + kItemCost; }

  // Channels that this end has not closed.
  [[nodiscard]] std::size_t open() const;
  [[nodiscard]] std::vector<std::shared_ptr<ChannelState>> all() const;
  // The senders that wait for room in a window, and the bytes that are on their way in those there are.
  struct Flows {
    std::size_t blocked = 0;
    std::uint64_t outstanding = 0;
  };
  [[nodiscard]] Flows flows() const;

  // Nobody gets anything any more: no channel is added from now on, and new ones are lost at once.
  void end();

  void set_limits(const Limits& limits) { limits_ = limits; }
  // Throws ProtocolError if the other side has more here than it may. `unfinished` messages with so many bytes are not
  // among the channels, nor are the answers that it does not read.
  void check(std::size_t unfinished, std::size_t unfinished_bytes, std::size_t unread_replies) const {
    const std::size_t unreferenced = states_.size() - std::min(referenced_, states_.size()) + forgotten_.runs();
    if (held_ + unfinished_bytes > limits_.bytes || std::max(unreferenced, unread_replies) > limits_.channels ||
        unfinished > limits_.messages) {
      refuse(unfinished, unfinished_bytes, unread_replies);
    }
  }

  StringConfig strings;               // how strings are loaded where the channel does not say
  std::uint64_t window = kUnbounded;  // of channels for which none is set
  bool receiving_ended = false;       // no channel gets any more items

 private:
  void refuse(std::size_t unfinished, std::size_t unfinished_bytes, std::size_t unread_replies) const;

  const Side side_;
  std::uint32_t next_id_;
  IdSet forgotten_;  // ids of the other side's making that are over
  std::unordered_map<std::uint32_t, std::shared_ptr<ChannelState>> states_;
  std::size_t referenced_ = 0;  // of these, how many the program has a handle for
  std::uint64_t held_ = 0;      // bytes that are kept for all of them
  Limits limits_;
  bool ended_ = false;
};

}  // namespace execnet::core
