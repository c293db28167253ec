// The part of Connection that says what each frame of the other side does. See connection.hpp.
#include <execnet/error.hpp>
#include <optional>
#include <string>
#include <utility>

#include "base/printable.hpp"
#include "connection/connection.hpp"
#include "connection/relay.hpp"
#include "connection/value_message.hpp"

namespace execnet::core {
namespace {

bool is_for_owner(wire::FrameType type) {
  switch (type) {
    case wire::FrameType::kHello:
    case wire::FrameType::kExec:
    case wire::FrameType::kOpen:
    case wire::FrameType::kTerminate:
    case wire::FrameType::kStatus: return true;
    default: return false;
  }
}

std::string text_of(const base::Buffer& payload) { return decode_value(payload.view()).as<std::string>(); }

}  // namespace

void Connection::take_in(Lock& lock, Incoming&& incoming) {
  // The owner's end ends this connection, which takes the lock: without it the reference is let go, which may be the
  // last. So there is one only if it is needed, and until all messages are taken in.
  std::shared_ptr<ConnectionOwner> owner;
  try {
    for (wire::Message& message : incoming.messages) {
      if (gone_) {
        break;
      }
      if (!is_for_owner(message.type)) {
        dispatch(lock, std::move(message));
        continue;
      }
      owner = owner_.lock();
      if (owner) {
        dispatch_to_owner(lock, *owner, std::move(message));
      }
    }
    channels_.check(incoming.unfinished, incoming.unfinished_bytes, writing_.unread_replies());
  } catch (const std::exception& error) {
    incoming.ended = true;
    incoming.error = error.what();
  }
  if (incoming.bell || writing_.was_woken()) {  // while data comes, no bell is read
    writing_.on_bell(lock);
  }
  if (incoming.ended) {
    if (trace_) {
      trace_->note("the stream has ended" + (incoming.error.empty() ? "" : ": " + incoming.error));
    }
    reading_.end();
    lock.unlock();
    shut_down();
    owner = owner_.lock();
    if (owner) {
      owner->on_stream_end(incoming.error);
    }
    owner.reset();
    lock.lock();
  } else if (owner) {
    lock.unlock();
    owner.reset();
    lock.lock();
  }
}

void Connection::dispatch_to_owner(Lock& lock, ConnectionOwner& owner, wire::Message&& message) {
  const std::uint32_t id = message.channel;
  const auto check_side = [&](const char* type) {
    if (side_ != Side::kWorker || channels_.is_ours(id)) {
      throw wire::ProtocolError(std::string(type) + " for channel " + std::to_string(id) + " came from the wrong side");
    }
  };
  switch (message.type) {
    case wire::FrameType::kHello:
      owner.on_hello(lock, std::move(message.payload));
      touch(lock, this);
      break;
    case wire::FrameType::kExec:
      check_side("EXEC");
      if (const auto state = channels_.of_frame(id)) {
        owner.on_exec(lock, state, std::move(message.payload));
        touch(lock, this);
      }
      break;
    case wire::FrameType::kOpen:
      check_side("OPEN");
      if (const auto state = channels_.of_frame(id)) {
        owner.on_open(lock, state, std::move(message.payload));
      }
      break;
    case wire::FrameType::kTerminate:
      owner.on_terminate(lock);
      touch(lock, this);
      break;
    case wire::FrameType::kStatus: owner.on_status_request(lock, id); break;
    default: break;
  }
}

void Connection::dispatch(Lock& lock, wire::Message&& message) {
  const std::uint32_t id = message.channel;
  switch (message.type) {
    case wire::FrameType::kData: on_data(lock, id, std::move(message.payload)); break;
    case wire::FrameType::kClose: on_peer_close(lock, id, std::nullopt); break;
    case wire::FrameType::kCloseError: on_peer_close(lock, id, base::printable(text_of(message.payload))); break;
    case wire::FrameType::kLast:
      if (const auto state = channels_.of_frame(id)) {
        end_items(lock, state);
      }
      break;
    case wire::FrameType::kReconfigure: on_reconfigure(id, message.payload); break;
    case wire::FrameType::kCredit: on_credit(lock, id, message.credit); break;
    case wire::FrameType::kWindow: on_window(lock, id, message.payload); break;
    case wire::FrameType::kRings: on_rings(lock); break;
    case wire::FrameType::kProbe: writing_.post_passed(lock, message.credit); break;
    case wire::FrameType::kPassed: writing_.on_passed(message.credit); break;
    default: break;
  }
}

void Connection::on_data(Lock& lock, std::uint32_t id, base::Buffer&& payload) {
  const auto state = channels_.of_frame(id);
  if (!state || state->closed || state->no_more_items) {
    return;
  }
  if (!state->flow.on_arrived(payload.size())) {
    throw wire::ProtocolError("more bytes than the window allows on channel " + std::to_string(id));
  }
  if (const auto relay = state->relay.lock()) {
    relay->on_item(lock, std::move(payload));
    return;
  }
  channels_.on_kept(payload.size());
  if (state->callback) {
    dispatcher_.push(lock, state, std::move(payload));
  } else {
    state->items.push_back(std::move(payload));
    touch(lock, state.get());
  }
}

void Connection::on_peer_close(Lock& lock, std::uint32_t id, std::optional<std::string> error) {
  const auto state = channels_.of_frame(id);
  if (!state || state->peer_closed) {
    return;
  }
  state->peer_closed = true;
  if (!state->closed) {
    state->closed = true;
    if (error) {
      keep_error(lock, *state, std::move(*error));
    }
    // The other side only needs this to forget the id: not worth a system call of its own.
    writing_.post_reply_later(lock, wire::FrameType::kClose, id);
  }
  channels_.forget_if_over(*state);
  end_items(lock, state);
}

// Credit for a channel that this end has closed, or forgotten, has crossed with its CLOSE.
void Connection::on_credit(Lock& lock, std::uint32_t id, std::uint32_t bytes) {
  const auto state = channels_.find(id);
  if (!state || state->closed) {
    return;
  }
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
  const auto state = channels_.of_frame(id);
  if (!state || state->relay.lock()) {
    return;
  }
  state->flow.set_theirs(window ? static_cast<std::uint64_t>(*window) : kUnbounded);
  touch(lock, state.get());
  tell_taken(lock, *state);
}

void Connection::on_reconfigure(std::uint32_t id, const base::Buffer& payload) {
  const auto [py2str_as_py3str, py3str_as_py2str] = decode_value(payload.view()).as<std::pair<bool, bool>>();
  const StringConfig strings{py2str_as_py3str, py3str_as_py2str};
  if (id == 0) {
    channels_.strings = strings;
  } else if (const auto state = channels_.of_frame(id)) {
    state->strings = strings;
  }
}

// What comes next comes by the ring. The worker answers with the same.
void Connection::on_rings(Lock& lock) {
  if (!link_.has_rings() || link_.reads_ring() || reading_.within_frame()) {
    throw wire::ProtocolError("RINGS came where it makes no sense");
  }
  link_.read_from_ring();
  writing_.on_bell(lock);
  if (side_ == Side::kWorker) {
    writing_.switch_to_ring();
  }
}

}  // namespace execnet::core
