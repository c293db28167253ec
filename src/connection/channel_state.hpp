// What one end knows of a channel. Plain data, guarded by the mutex of its connection.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <execnet/dump.hpp>

#include "base/buffer.hpp"
#include "base/fifo.hpp"
#include "connection/flow.hpp"

namespace execnet::core {

class Callback;
class ChannelHandle;
class Relay;

struct ChannelState {
  explicit ChannelState(std::uint32_t channel_id, std::uint64_t window = kUnbounded) : id(channel_id), flow(window) {}

  const std::uint32_t id;
  base::Fifo<base::Buffer> items;      // arrived, not yet received; still encoded
  base::Fifo<std::string> errors;      // the other side's error texts that nobody was told yet
  bool closed = false;                 // this end has sent its CLOSE: it sends nothing more
  bool peer_closed = false;            // the other end's CLOSE has arrived
  bool no_more_items = false;          // nothing will be added to `items`
  bool referenced = false;             // the program has had a handle
  bool lost = false;                   // because the gateway is gone
  std::shared_ptr<Callback> callback;  // takes the items instead of `items`, until it was told of the end
  std::weak_ptr<Relay> relay;          // takes the items instead of `items`, if there is one
  bool had_callback = false;
  std::atomic<bool> to_be_told{false};  // a callback was not yet told of the end; also read without the mutex
  bool callback_failed = false;
  bool executing = false;               // on a worker: code runs with it, and may not close it
  bool executed = false;                // on a worker: an EXEC has come for it; there may be only one
  std::optional<StringConfig> strings;  // how strings are loaded; none: as the gateway says
  Flow flow;                            // of items, in both directions
  std::weak_ptr<ChannelHandle> handle;  // what the program holds, if it still does
};

// "<Channel id=1 open>"
std::string repr_of(const ChannelState& state);

}  // namespace execnet::core
