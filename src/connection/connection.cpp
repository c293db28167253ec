#include "connection/connection.hpp"

#include <chrono>
#include <execnet/error.hpp>
#include <utility>

#include "connection/channel_handle.hpp"
#include "connection/relay.hpp"
#include "connection/value_message.hpp"

namespace execnet::core {
namespace {

// How long a sender that found the stream broken waits to learn why.
constexpr std::chrono::milliseconds kCauseIsKnownWithin{500};

}  // namespace

Connection::Connection(base::Fd stream, std::shared_ptr<loop::Loop> loop, Side side)
    : link_(std::move(stream)),
      loop_(std::move(loop)),
      side_(side),
      noise_(side == Side::kCoordinator ? std::optional<std::string>("") : std::nullopt),
      next_id_(side == Side::kCoordinator ? 1 : 2) {}

Connection::Lock Connection::lock() {
  if (in_forked_copy()) {
    throw GatewayGone("the gateway belongs to the process that this one was forked from: make one here");
  }
  return Lock(mutex_);
}

Connection::~Connection() { loop_->unwatch(watch_); }

void Connection::start(std::weak_ptr<ConnectionOwner> owner, bool loop_reads) {
  auto lock = this->lock();
  owner_ = std::move(owner);
  watch_ = loop_->watch(link_.fd(), 0, [weak = weak_from_this()](std::uint32_t ready) {
    if (const auto self = weak.lock()) {
      self->guarded([&] { self->on_ready(ready); });
    }
  });
  if (loop_reads) {
    arm(lock);
  }
}

// --- Channels ---

bool Connection::is_ours(std::uint32_t id) const { return id % 2 == (side_ == Side::kCoordinator ? 1 : 0); }

// The channel of an id in a frame. The other side's channels exist from their first frame on: the
// reference may still lie undecoded in another channel's queue. Null when it is over and done with.
std::shared_ptr<ChannelState> Connection::state_for(Lock& lock, std::uint32_t id) {
  static_cast<void>(lock);
  if (id == 0) {
    throw wire::ProtocolError("a frame that needs a channel came without one");
  }
  if (const auto found = channels_.find(id); found != channels_.end()) {
    return found->second;
  }
  if (is_ours(id) || forgotten_.contains(id)) {
    return nullptr;
  }
  auto state = std::make_shared<ChannelState>(id, window_);
  state->no_more_items = receiving_ended_;
  channels_.emplace(id, state);
  return state;
}

std::shared_ptr<ChannelState> Connection::new_state(Lock& lock) {
  static_cast<void>(lock);
  auto state = std::make_shared<ChannelState>(next_id_, window_);
  state->lost = state->closed = gone_.has_value();
  state->no_more_items = gone_ || receiving_ended_;
  if (!gone_) {
    channels_.emplace(next_id_, state);
  }
  next_id_ += 2;
  return state;
}

std::shared_ptr<ChannelHandle> Connection::new_channel(Lock& lock) { return handle(lock, new_state(lock)); }

std::shared_ptr<ChannelHandle> Connection::channel(Lock& lock, std::uint32_t id) {
  auto state = gone_ ? nullptr : state_for(lock, id);
  if (!state) {  // a second reference to a channel that is over
    state = std::make_shared<ChannelState>(id);
    state->closed = state->peer_closed = state->no_more_items = true;
    state->lost = gone_.has_value();
  }
  return handle(lock, state);
}

std::shared_ptr<ChannelHandle> Connection::handle(Lock& lock, const std::shared_ptr<ChannelState>& state) {
  static_cast<void>(lock);
  if (auto known = state->handle.lock()) {
    return known;
  }
  auto made = std::make_shared<ChannelHandle>(shared_from_this(), state);
  state->handle = made;
  state->referenced = true;
  return made;
}

void Connection::close_channel(Lock& lock, const std::shared_ptr<ChannelState>& state,
                               const std::optional<std::string>& error) {
  if (state->closed) {
    return;
  }
  state->closed = true;
  if (error) {
    post(lock, wire::FrameType::kCloseError, state->id, encode_value(Value(*error)));
  } else {
    post(lock, wire::FrameType::kClose, state->id);
  }
  forget_if_over(state);
  end_items(lock, state);
}

void Connection::on_peer_close(Lock& lock, std::uint32_t id, std::optional<std::string> error) {
  const auto state = state_for(lock, id);
  if (!state || state->peer_closed) {
    return;
  }
  state->peer_closed = true;
  if (!state->closed) {
    state->closed = true;
    if (error) {
      state->errors.push_back(std::move(*error));
    }
    // The other side only needs this to forget the id: not worth a system call.
    post_later(lock, wire::FrameType::kClose, id);
  }
  forget_if_over(state);
  end_items(lock, state);
}

void Connection::drop_channel(Lock& lock, const std::shared_ptr<ChannelState>& state) {
  if (!state->handle.expired()) {
    return;  // a new handle was made for it meanwhile
  }
  state->items.clear();
  if (state->callback && !state->closed) {
    if (!state->no_more_items) {  // it stays active: this end still reads
      post(lock, wire::FrameType::kLast, state->id);
    }
    return;
  }
  if (!state->executing) {
    close_channel(lock, state, std::nullopt);
  }
  forget_if_over(state);
}

void Connection::forget_if_over(const std::shared_ptr<ChannelState>& state) {
  if (state->closed && state->peer_closed && state->referenced && state->handle.expired()) {
    if (!is_ours(state->id)) {
      forgotten_.insert(state->id);
    }
    channels_.erase(state->id);
  }
}

std::size_t Connection::open_channels(Lock& lock) const {
  static_cast<void>(lock);
  return static_cast<std::size_t>(
      std::count_if(channels_.begin(), channels_.end(), [](const auto& entry) { return !entry.second->closed; }));
}

StringConfig Connection::strings(const Lock& lock) const {
  static_cast<void>(lock);
  return strings_;
}

void Connection::set_strings(const Lock& lock, StringConfig strings) {
  static_cast<void>(lock);
  strings_ = strings;
}

void Connection::end_items(Lock& lock, const std::shared_ptr<ChannelState>& state) {
  if (!std::exchange(state->no_more_items, true)) {
    if (const auto relay = state->relay.lock()) {
      relay->on_end(lock);
    } else if (state->callback) {
      dispatcher_.push(lock, state, std::nullopt);
    }
  }
  touch(lock, state.get());
}

void Connection::answer(Lock& lock, std::uint32_t id, base::Buffer payload) {
  if (const auto state = state_for(lock, id)) {
    state->referenced = true;
    post(lock, wire::FrameType::kData, id, std::move(payload));
    close_channel(lock, state, std::nullopt);
  }
}

// --- The end ---

void Connection::end_receiving(Lock& lock) {
  receiving_ended_ = true;
  std::vector<std::shared_ptr<ChannelState>> states;  // a relay may let go of the mutex: the channels change
  states.reserve(channels_.size());
  for (const auto& [id, state] : channels_) {
    states.push_back(state);
  }
  for (const auto& state : states) {
    end_items(lock, state);
  }
}

void Connection::finish(const std::string& cause) {
  if (in_forked_copy()) {
    return;
  }
  auto lock = this->lock();
  if (gone_) {
    return;
  }
  gone_ = cause;
  reader_ = Reader::kEnded;
  update_interest(lock);
  shut_down();
  for (auto& [id, state] : channels_) {
    state->lost = !state->no_more_items;
    state->closed = true;
    end_items(lock, state);
  }
  channels_.clear();
  if (waits_for_room_ != nullptr) {
    waits_for_room_->wake();
  } else if (writer_ == Writer::kNone || (writer_ == Writer::kLoop && link_.writes_ring())) {
    fail_writing(lock);
  }
  touch_all(lock);
}

bool Connection::receiving_ended(const Lock& lock) const {
  static_cast<void>(lock);
  return receiving_ended_;
}

const std::optional<std::string>& Connection::gone(const Lock& lock) const {
  static_cast<void>(lock);
  return gone_;
}

void Connection::shut_down() { link_.shut_down(); }

void Connection::throw_gone(Lock& lock, const base::Wait& wait) {
  base::Wait for_cause{.deadline = base::Clock::now() + kCauseIsKnownWithin, .hub = wait.hub};
  wait_until(lock, this, for_cause, [&] { return gone_.has_value(); });
  throw GatewayGone(gone_.value_or("the connection is broken"));
}

}  // namespace execnet::core
