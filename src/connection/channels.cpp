#include "connection/channels.hpp"

#include <unistd.h>

#include <algorithm>

#include "wire/frame.hpp"

namespace execnet::core {
namespace {

[[noreturn]] void more_than(const char* key, std::uint64_t limit, const std::string& what) {
  throw wire::ProtocolError("the other side " + what + ": more than limits=" + key + "=" + std::to_string(limit) +
                            " allows. Raise that in the specification if the program means it");
}

}  // namespace

Limits Limits::of_this_machine() {
  const auto pages = static_cast<std::uint64_t>(std::max(::sysconf(_SC_PHYS_PAGES), 1L));
  const auto page = static_cast<std::uint64_t>(std::max(::sysconf(_SC_PAGESIZE), 1L));
  return {.bytes = pages * page / 2, .channels = 1'000'000, .messages = 100'000};
}

std::shared_ptr<ChannelState> Channels::find(std::uint32_t id) const {
  const auto found = states_.find(id);
  return found != states_.end() ? found->second : nullptr;
}

std::shared_ptr<ChannelState> Channels::of_frame(std::uint32_t id) {
  if (id == 0) {
    throw wire::ProtocolError("a frame that needs a channel came without one");
  }
  if (const auto found = states_.find(id); found != states_.end()) {
    return found->second;
  }
  if (ended_ || is_ours(id) || forgotten_.contains(id)) {
    return nullptr;
  }
  auto state = std::make_shared<ChannelState>(id, window);
  state->no_more_items = receiving_ended;
  states_.emplace(id, state);
  return state;
}

std::shared_ptr<ChannelState> Channels::make() {
  auto state = std::make_shared<ChannelState>(next_id_, window);
  state->lost = state->closed = ended_;
  state->no_more_items = ended_ || receiving_ended;
  if (!ended_) {
    states_.emplace(next_id_, state);
  }
  next_id_ += 2;
  return state;
}

std::shared_ptr<ChannelState> Channels::over(std::uint32_t id) const {
  auto state = std::make_shared<ChannelState>(id);
  state->closed = state->peer_closed = state->no_more_items = true;
  state->lost = ended_;
  return state;
}

void Channels::on_referenced(ChannelState& state) {
  state.referenced = true;
  ++referenced_;
}

void Channels::drop_items(ChannelState& state) {
  for (const base::Buffer& item : state.items) {
    on_taken(item.size());
  }
  state.items.clear();
}

void Channels::forget_if_over(const ChannelState& state) {
  if (!state.closed || !state.peer_closed || !state.handle.expired()) {
    return;
  }
  if (!state.referenced && !(state.items.empty() && state.errors.empty())) {
    return;  // the reference to it may still come
  }
  const std::uint32_t id = state.id;
  if (!is_ours(id)) {
    forgotten_.insert(id);
  }
  if (states_.erase(id) != 0) {
    for (const std::string& error : state.errors) {
      on_taken(error.size());
    }
  }
}

std::size_t Channels::open() const {
  return static_cast<std::size_t>(
      std::count_if(states_.begin(), states_.end(), [](const auto& entry) { return !entry.second->closed; }));
}

std::vector<std::shared_ptr<ChannelState>> Channels::all() const {
  std::vector<std::shared_ptr<ChannelState>> states;
  states.reserve(states_.size());
  for (const auto& [id, state] : states_) {
    states.push_back(state);
  }
  return states;
}

Channels::Flows Channels::flows() const {
  Flows flows;
  for (const auto& [id, state] : states_) {
    flows.blocked += state->flow.senders.size();
    if (!state->closed && state->flow.window() != kUnbounded) {
      flows.outstanding += state->flow.outstanding();
    }
  }
  return flows;
}

void Channels::end() {
  ended_ = true;
  states_.clear();
  held_ = 0;
}

void Channels::refuse(std::size_t unfinished, std::size_t unfinished_bytes, std::size_t unread_replies) const {
  if (ended_) {
    return;
  }
  if (held_ + unfinished_bytes > limits_.bytes) {
    more_than("bytes", limits_.bytes, "has sent bytes that the program has not received");
  }
  if (unfinished > limits_.messages) {
    more_than("messages", limits_.messages, "has begun messages and not completed them");
  }
  more_than("channels", limits_.channels,
            unread_replies > limits_.channels ? "does not read the answers to what it sends"
                                              : "has made channels that the program has no handle for");
}

}  // namespace execnet::core
