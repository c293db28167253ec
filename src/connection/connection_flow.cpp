// The part of Connection that keeps to windows: what was taken is told, and what is told lets senders go on.
// See connection.hpp, and flow.hpp for what is counted.
#include <execnet/error.hpp>
#include <optional>
#include <string>
#include <utility>

#include "connection/connection.hpp"
#include "connection/value_message.hpp"

namespace execnet::core {

void Connection::set_window(const Lock& lock, std::uint64_t window) {
  static_cast<void>(lock);
  window_ = window;
}

void Connection::set_window(Lock& lock, const std::shared_ptr<ChannelState>& state, std::uint64_t window) {
  state->flow.set_ours(window);
  const Value said = window == kUnbounded ? Value() : Value(static_cast<std::int64_t>(window));
  post(lock, wire::FrameType::kWindow, state->id, encode_value(said));
  touch(lock, state.get());
  tell_taken(lock, *state);
}

Connection::Flows Connection::flows(const Lock& lock) const {
  static_cast<void>(lock);
  Flows flows;
  for (const auto& [id, state] : channels_) {
    flows.blocked += state->flow.senders.size();
    if (!state->closed && state->flow.window() != kUnbounded) {
      flows.outstanding += state->flow.outstanding();
    }
  }
  return flows;
}

void Connection::on_taken(Lock& lock, ChannelState& state, std::size_t bytes) {
  state.flow.on_taken(bytes);
  tell_taken(lock, state);
}

// Nobody is told who will send no more: it may not know the channel any longer.
void Connection::tell_taken(Lock& lock, ChannelState& state) {
  while (!state.closed && !state.no_more_items) {
    const std::uint32_t credit = state.flow.credit_due();
    if (credit == 0) {
      return;
    }
    auto message = std::make_shared<Outgoing>();
    message->type = wire::FrameType::kCredit;
    message->channel = state.id;
    message->credit = credit;
    outbox_.push(std::move(message));
    if (writer_ == Writer::kNone) {
      write_without_waiting(lock);
    }
  }
}

// Credit for a channel that this end has closed, or forgotten, has crossed with its CLOSE.
void Connection::on_credit(Lock& lock, std::uint32_t id, std::uint32_t bytes) {
  const auto found = channels_.find(id);
  if (found == channels_.end() || found->second->closed) {
    return;
  }
  const std::shared_ptr<ChannelState> state = found->second;
  if (!state->flow.on_credit(bytes)) {
    throw wire::ProtocolError("credit for " + std::to_string(bytes) + " bytes on channel " + std::to_string(id) +
                              ", where " + std::to_string(state->flow.outstanding()) + " are on their way");
  }
  if (!state->flow.senders.empty()) {
    touch(lock, state.get());
  }
}

void Connection::on_window(Lock& lock, std::uint32_t id, const base::Buffer& payload) {
  const auto window = decode_value(payload.view()).as<std::optional<std::int64_t>>();
  if (window && *window < 1) {
    throw wire::ProtocolError("a window of " + std::to_string(*window) + " bytes on channel " + std::to_string(id));
  }
  const auto state = state_for(lock, id);
  if (!state || state->relay.lock()) {
    return;
  }
  state->flow.set_theirs(window ? static_cast<std::uint64_t>(*window) : kUnbounded);
  touch(lock, state.get());
  tell_taken(lock, *state);
}

}  // namespace execnet::core
