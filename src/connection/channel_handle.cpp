#include "connection/channel_handle.hpp"

#include <algorithm>
#include <exception>
#include <execnet/error.hpp>
#include <iterator>
#include <thread>
#include <utility>

#include "connection/value_message.hpp"

namespace execnet::core {
namespace {

// A blocked sender, in its place in the queue of senders. Made and destroyed with the mutex held.
class Waiting {
 public:
  Waiting(Connection& connection, Connection::Lock& lock, ChannelState& state, const base::Wait& wait)
      : connection_(connection), lock_(lock), state_(state), sender_{std::this_thread::get_id(), wait.greenlet} {
    state_.flow.senders.push_back(sender_);
  }
  ~Waiting() {
    auto& senders = state_.flow.senders;
    senders.erase(std::prev(std::find(senders.rbegin(), senders.rend(), sender_).base()));
    connection_.touch(lock_, &state_);  // the next one
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

  [[nodiscard]] bool is_first() const { return state_.flow.senders.front() == sender_; }

 private:
  Connection& connection_;
  Connection::Lock& lock_;
  ChannelState& state_;
  const Flow::Sender sender_;
};

// Ends a connection that could not say what it has to say.
void give_up(Connection& connection, const std::exception& error) noexcept {
  connection.shut_down();
  try {
    if (const auto owner = connection.owner()) {
      owner->on_stream_end(std::string("a channel could not be closed: ") + error.what());
    }
  } catch (const std::exception&) {
    // Who reads finds the end of the stream, without a cause.
  }
}

}  // namespace

ChannelHandle::~ChannelHandle() {
  if (connection_->in_forked_copy()) {
    return;  // the parent's handle is another one
  }
  try {
    auto lock = connection_->lock();
    connection_->drop_channel(lock, state_);
  } catch (const std::exception& error) {  // no memory: the other side would wait for ever to be told
    give_up(*connection_, error);
  }
}

void ChannelHandle::check_open(Connection::Lock& lock) {
  if (state_->lost) {
    connection_->throw_gone(lock);
  }
  if (state_->closed) {
    throw ChannelClosed("cannot send to " + repr_of(*state_) + ": it is closed");
  }
}

void ChannelHandle::send(base::Rope payload, const base::Wait& wait, bool to_be_told) {
  auto lock = connection_->lock();
  try {
    check_open(lock);
    if (!state_->flow.senders.empty() || !state_->flow.has_room(payload.size())) {
      wait_for_room(lock, payload.size(), wait);
    }
    state_->flow.on_sent(payload.size());
    connection_->send(lock, wire::FrameType::kData, state_->id, std::move(payload), wait);
  } catch (const GatewayGone&) {
    if (!to_be_told) {
      throw;
    }
  }
}

void ChannelHandle::wait_for_room(Connection::Lock& lock, std::size_t bytes, const base::Wait& wait) {
  const Flow& flow = state_->flow;
  const Waiting self(*connection_, lock, *state_, wait);
  const auto decided = [&] {
    return state_->closed || connection_->receiving_ended(lock) || (self.is_first() && flow.has_room(bytes));
  };
  if (!connection_->wait_until(lock, state_.get(), wait, decided)) {
    throw TimeoutError("cannot send to " + repr_of(*state_) + " in time: of its window of " +
                       std::to_string(flow.window()) + " bytes, " + std::to_string(flow.outstanding()) +
                       " are on their way, and not received by the other side");
  }
  check_open(lock);
  if (!flow.has_room(bytes)) {
    throw ChannelClosed("cannot send to " + repr_of(*state_) + ": its window is full, and this worker is told to end");
  }
}

bool ChannelHandle::post(base::Buffer payload) {
  auto lock = connection_->lock();
  if (state_->closed || state_->lost) {
    return false;
  }
  state_->flow.on_sent(payload.size());
  connection_->post(lock, wire::FrameType::kData, state_->id, std::move(payload));
  return true;
}

base::Buffer ChannelHandle::receive(const base::Wait& wait) {
  auto lock = connection_->lock();
  ChannelState& state = *state_;
  if (state.had_callback) {
    throw StateError("cannot receive() on " + repr_of(state) + ": its items go to a callback");
  }
  if (!connection_->wait_until(lock, &state, wait, [&] { return !state.items.empty() || state.no_more_items; })) {
    throw TimeoutError("nothing came in time on " + repr_of(state));
  }
  if (state.items.empty()) {
    throw_end(lock);
  }
  return take_item(lock);
}

base::Buffer ChannelHandle::take_item(Connection::Lock& lock) {
  base::Buffer item = state_->items.take_front();
  connection_->on_taken(lock, *state_, item.size());
  return item;
}

ChannelHandle::Flowing ChannelHandle::flow() const {
  auto lock = connection_->lock();
  return {state_->flow.window(), state_->flow.outstanding()};
}

void ChannelHandle::set_window(std::uint64_t window) {
  auto lock = connection_->lock();
  check_open(lock);
  connection_->set_window(lock, state_, window);
}

std::optional<base::Buffer> ChannelHandle::try_receive() {
  auto lock = connection_->lock();
  if (state_->items.empty()) {
    return std::nullopt;
  }
  return take_item(lock);
}

bool ChannelHandle::no_more_items() const {
  auto lock = connection_->lock();
  return state_->no_more_items;
}

void ChannelHandle::throw_end(Connection::Lock& lock) {
  if (!state_->errors.empty()) {
    const std::string text = connection_->take_error(lock, *state_);
    throw RemoteError(text);
  }
  if (state_->lost) {
    connection_->throw_gone(lock);
  }
  throw EndOfChannel("no more items on " + repr_of(*state_));
}

StringConfig ChannelHandle::strings() const {
  auto lock = connection_->lock();
  return state_->strings.value_or(connection_->strings(lock));
}

void ChannelHandle::reconfigure(StringConfig strings, const base::Wait& wait) {
  base::Buffer payload = encode_value(Value(Tuple{strings.py2str_as_py3str, strings.py3str_as_py2str}));
  auto lock = connection_->lock();
  check_open(lock);
  state_->strings = strings;
  connection_->send(lock, wire::FrameType::kReconfigure, state_->id, std::move(payload), wait);
}

void ChannelHandle::close(const std::optional<std::string>& error) {
  auto lock = connection_->lock();
  if (state_->executing) {
    throw StateError("cannot explicitly close channel within remote_exec");
  }
  connection_->close_channel(lock, state_, error);
}

bool ChannelHandle::isclosed() const {
  if (connection_->in_forked_copy()) {
    return true;
  }
  auto lock = connection_->lock();
  return state_->closed;
}

void ChannelHandle::waitclose(const base::Wait& wait) {
  auto lock = connection_->lock();
  // Closed means that the callback, too, has had everything; within one that cannot be waited for.
  const auto ended = [&] {
    return state_->no_more_items && (!state_->callback || connection_->dispatcher().runs_here(wait));
  };
  if (!connection_->wait_until(lock, state_.get(), wait, ended)) {
    throw TimeoutError(repr_of(*state_) + " was not closed in time");
  }
  if (!state_->errors.empty() || state_->lost) {
    throw_end(lock);
  }
}

bool ChannelHandle::set_callback(std::shared_ptr<Callback> callback, bool in_greenlet) {
  auto lock = connection_->lock();
  if (state_->had_callback) {
    throw StateError(repr_of(*state_) + " has a callback already");
  }
  // First, since there may be no thread to be had: then nothing has changed.
  const bool is_for_caller = connection_->dispatcher().start(lock, in_greenlet);
  state_->had_callback = true;
  state_->callback = std::move(callback);
  state_->to_be_told = true;
  for (base::Buffer& item : state_->items) {
    connection_->dispatcher().push(lock, state_, std::move(item));
  }
  state_->items.clear();
  if (state_->no_more_items) {
    connection_->dispatcher().push(lock, state_, std::nullopt);
  }
  return is_for_caller;
}

std::exception_ptr ChannelHandle::take_error() {
  auto lock = connection_->lock();
  if (!state_->errors.empty() || state_->lost) {
    try {
      throw_end(lock);
    } catch (const Error&) {
      return std::current_exception();
    }
  }
  return nullptr;
}

void ChannelHandle::set_executing(bool executing) {
  auto lock = connection_->lock();
  state_->executing = executing;
}

std::string ChannelHandle::repr() const {
  if (connection_->in_forked_copy()) {
    return "<Channel id=" + std::to_string(state_->id) + " of another process>";
  }
  auto lock = connection_->lock();
  return repr_of(*state_);
}

}  // namespace execnet::core
