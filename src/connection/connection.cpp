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
    : side_(side),
      loop_(std::move(loop)),
      link_(std::move(stream)),
      reading_(link_, roles_, waits_, *this, side == Side::kCoordinator),
      channels_(side) {}

Connection::Lock Connection::lock() {
  if (in_forked_copy()) {
    throw ForkedResourceError("the gateway belongs to the process that this one was forked from: make one here");
  }
  return Lock(mutex_);
}

void Connection::start(std::weak_ptr<ConnectionOwner> owner, bool loop_reads) {
  const auto lock = this->lock();
  owner_ = std::move(owner);
  const auto on_ready = [this](Lock& own, std::uint32_t ready) {
    if ((ready & loop::kWrite) != 0) {
      writing_.on_writable(own);
    }
    if ((ready & loop::kRead) != 0) {
      reading_.on_readable(own);
    }
  };
  const auto on_failed = [this](const std::string& error) {
    shut_down();
    {
      const auto own = this->lock();
      reading_.end();
    }
    if (const auto told = owner_.lock()) {
      told->on_stream_end(error);
    }
  };
  roles_.start(weak_from_this(), on_ready, on_failed);
  if (loop_reads) {
    reading_.arm();
  }
}

void Connection::set_trace(Lock& lock, std::unique_ptr<const Trace> trace) {
  static_cast<void>(lock);
  trace_ = std::move(trace);
  reading_.set_trace(trace_.get());
  writing_.set_trace(trace_.get());
}

// --- Writing ---

void Connection::send(Lock& lock, wire::FrameType type, std::uint32_t channel, base::Rope&& payload,
                      const base::Wait& wait) {
  switch (writing_.send(lock, type, channel, std::move(payload), wait)) {
    case Writing::Sent::kYes: return;
    case Writing::Sent::kLate: throw TimeoutError("the other side did not take the message in time");
    case Writing::Sent::kBroken: throw_gone(lock, wait);
  }
}

void Connection::on_taken_back(Lock& lock, const Outgoing& message) {
  if (message.type != wire::FrameType::kData) {
    return;
  }
  if (const auto state = channels_.find(message.channel)) {
    state->flow.on_taken_back(message.payload.size());
    touch(lock, state.get());
  }
}

void Connection::agree_on_rings(Lock& lock) {
  static_cast<void>(lock);
  rings_agreed_ = link_.has_rings();
}

void Connection::use_rings(Lock& lock) {
  static_cast<void>(lock);
  if (std::exchange(rings_agreed_, false)) {
    writing_.switch_to_ring();
  }
}

// --- Channels ---

std::shared_ptr<ChannelHandle> Connection::channel(Lock& lock, std::uint32_t id) {
  auto state = channels_.of_frame(id);
  return handle(lock, state ? state : channels_.over(id));
}

std::shared_ptr<ChannelHandle> Connection::handle(Lock& lock, const std::shared_ptr<ChannelState>& state) {
  static_cast<void>(lock);
  if (auto known = state->handle.lock()) {
    return known;
  }
  auto made = std::make_shared<ChannelHandle>(shared_from_this(), state);
  state->handle = made;
  channels_.on_referenced(*state);
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
  channels_.forget_if_over(*state);
  end_items(lock, state);
}

void Connection::keep_error(Lock& lock, ChannelState& state, std::string text) {
  static_cast<void>(lock);
  channels_.on_kept(text.size());
  state.errors.push_back(std::move(text));
}

std::string Connection::take_error(Lock& lock, ChannelState& state) {
  static_cast<void>(lock);
  std::string text = state.errors.take_front();
  channels_.on_taken(text.size());
  return text;
}

void Connection::drop_channel(Lock& lock, const std::shared_ptr<ChannelState>& state) {
  channels_.on_unreferenced();
  if (!state->handle.expired()) {
    return;  // a new handle was made for it meanwhile
  }
  channels_.drop_items(*state);
  if (state->callback && !state->closed) {
    if (!state->no_more_items) {  // it stays active: this end still reads
      post(lock, wire::FrameType::kLast, state->id);
    }
    return;
  }
  if (!state->executing) {
    close_channel(lock, state, std::nullopt);
  }
  channels_.forget_if_over(*state);
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
  const auto state = channels_.of_frame(id);
  if (!state || std::exchange(state->closed, true)) {
    return;
  }
  writing_.post_reply(lock, wire::FrameType::kData, id, std::move(payload));
  writing_.post_reply(lock, wire::FrameType::kClose, id, {});
  channels_.forget_if_over(*state);
  end_items(lock, state);
}

// --- Windows ---

void Connection::set_window(Lock& lock, const std::shared_ptr<ChannelState>& state, std::uint64_t window) {
  state->flow.set_ours(window);
  const Value said = window == kUnbounded ? Value() : Value(static_cast<std::int64_t>(window));
  post(lock, wire::FrameType::kWindow, state->id, encode_value(said));
  touch(lock, state.get());
  tell_taken(lock, *state);
}

void Connection::on_taken(Lock& lock, ChannelState& state, std::size_t bytes) {
  channels_.on_taken(bytes);
  state.flow.on_taken(bytes);
  tell_taken(lock, state);
}

// Who will send no more is told nothing: it may not know the channel any longer.
void Connection::tell_taken(Lock& lock, ChannelState& state) {
  while (!state.closed && !state.no_more_items) {
    const std::uint32_t credit = state.flow.credit_due();
    if (credit == 0) {
      return;
    }
    writing_.post_credit(lock, state.id, credit);
  }
}

// --- The end ---

void Connection::end_receiving(Lock& lock) {
  channels_.receiving_ended = true;
  for (const auto& state : channels_.all()) {  // copies: a relay may let go of the mutex, and the channels change
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
  if (trace_) {
    trace_->note(cause);
  }
  reading_.end();
  shut_down();
  const auto states = channels_.all();
  channels_.end();
  for (const auto& state : states) {
    state->lost = !state->no_more_items;
    state->closed = true;
    end_items(lock, state);
  }
  writing_.end(lock);
  waits_.touch_all();
}

void Connection::throw_gone(Lock& lock, const base::Wait& wait) {
  base::Wait for_cause{.deadline = base::Clock::now() + kCauseIsKnownWithin, .hub = wait.hub};
  wait_until(lock, this, for_cause, [&] { return gone_.has_value(); });
  throw GatewayGone(gone_.value_or("the connection is broken"));
}

}  // namespace execnet::core
