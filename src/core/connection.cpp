#include "core/connection.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <execnet/error.hpp>
#include <utility>

#include "base/syscall.hpp"
#include "core/channel_handle.hpp"
#include "core/value_message.hpp"

namespace execnet::core {
namespace {

constexpr std::chrono::milliseconds kTick{1};
// How long a sender that found the stream broken waits to learn why.
constexpr std::chrono::milliseconds kCauseIsKnownWithin{500};
constexpr std::size_t kMostNoise = std::size_t{64} * 1024;
constexpr std::size_t kNoiseShown = 400;
constexpr std::size_t kMostParts = 64;

std::string text_of(const base::Buffer& payload) { return decode_value(payload.view()).as<std::string>(); }

}  // namespace

Connection::Connection(base::Fd stream, std::shared_ptr<loop::Loop> loop, Side side)
    : stream_(std::move(stream)),
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

void Connection::start(std::weak_ptr<ConnectionOwner> owner) {
  auto lock = this->lock();
  owner_ = std::move(owner);
  watch_ = loop_->watch(stream_.get(), 0, [weak = weak_from_this()](std::uint32_t ready) {
    if (const auto self = weak.lock()) {
      self->on_ready(ready);
    }
  });
  arm(lock);
}

// --- Writing ---

void Connection::send(Lock& lock, wire::FrameType type, std::uint32_t channel, base::Buffer payload,
                      const base::Wait& wait) {
  if (gone_ || writing_failed_) {
    throw_gone(lock);
  }
  const auto message = std::make_shared<Outgoing>();
  message->type = type;
  message->channel = channel;
  message->payload = std::move(payload);
  outbox_.push(message);
  if (writer_ == Writer::kNone) {
    write_without_waiting(lock);
  }
  if (message->written) {
    return;
  }
  Writing self(*this, lock, message);
  base::Sleep sleep(wait);
  while (!message->written) {
    if (gone_ || writing_failed_) {
      self.leave();
      throw_gone(lock);
    }
    switch (self.sleep(sleep)) {
      case base::Woken::kReady: break;
      case base::Woken::kTimedOut: throw TimeoutError("the other side did not take the message in time");
      case base::Woken::kSignal:
        if (wait.interrupted != nullptr) {
          self.leave();  // what runs now may send on this very connection
          lock.unlock();
          wait.interrupted();
          lock.lock();
        }
        break;
    }
  }
}

Connection::Writing::Writing(Connection& connection, Lock& lock, std::shared_ptr<Outgoing> message)
    : connection_(connection), lock_(lock), waiter_(loop::Waiter::of_this_thread()), message_(std::move(message)) {}

Connection::Writing::~Writing() {
  if (!lock_.owns_lock()) {
    lock_.lock();
  }
  leave();
  if (!message_->written) {
    connection_.outbox_.retract(message_);
    if (connection_.writer_ == Writer::kNone) {
      connection_.write_without_waiting(lock_);
    }
  }
}

void Connection::Writing::leave() {
  message_->sender = nullptr;
  if (std::exchange(writes_, false)) {
    connection_.release_writing(lock_);
  }
}

base::Woken Connection::Writing::sleep(base::Sleep& sleep) {
  if (connection_.writer_ != Writer::kCaller) {  // taken from the loop, too: one wake-up less
    connection_.writer_ = Writer::kCaller;
    connection_.update_interest(lock_);
    writes_ = true;
  }
  message_->sender = writes_ ? nullptr : &waiter_;
  std::array<pollfd, 2> fds{{{waiter_.fd(), POLLIN, 0}, {connection_.stream_.get(), POLLOUT, 0}}};
  lock_.unlock();
  const base::Woken woken = sleep.until_ready(std::span(fds).first(writes_ ? 2 : 1));
  if (fds[0].revents != 0) {
    waiter_.clear();
  }
  lock_.lock();
  message_->sender = nullptr;
  while (writes_ && !message_->written && connection_.write_batch(lock_)) {
  }
  return message_->written ? base::Woken::kReady : woken;
}

void Connection::post(Lock& lock, wire::FrameType type, std::uint32_t channel, base::Buffer payload) {
  auto message = std::make_shared<Outgoing>();
  message->type = type;
  message->channel = channel;
  message->payload = std::move(payload);
  outbox_.push(std::move(message));
  if (writer_ == Writer::kNone) {
    write_without_waiting(lock);
  }
}

void Connection::post_raw(Lock& lock, base::Buffer bytes) {
  auto message = std::make_shared<Outgoing>();
  message->type = wire::FrameType::kHello;
  message->channel = 0;
  message->payload = std::move(bytes);
  message->raw = true;
  outbox_.push(std::move(message));
  if (writer_ == Writer::kNone) {
    write_without_waiting(lock);
  }
}

void Connection::post_later(Lock& lock, wire::FrameType type, std::uint32_t channel) {
  static_cast<void>(lock);
  auto message = std::make_shared<Outgoing>();
  message->type = type;
  message->channel = channel;
  outbox_.push(std::move(message));
}

// Writes what is queued as long as the operating system takes it.
// REQUIRES: writer_ is kNone.
void Connection::write_without_waiting(Lock& lock) {
  writer_ = Writer::kCaller;
  while (!outbox_.empty() && write_batch(lock)) {
  }
  release_writing(lock);
}

// One system call; true if it took something. The calling thread has the writing.
bool Connection::write_batch(Lock& lock) {
  if (writing_failed_ || gone_) {
    fail_writing(lock);
    return false;
  }
  std::array<iovec, kMostParts> parts;
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = outbox_.gather(parts);
  if (message.msg_iovlen == 0) {
    return false;
  }
  lock.unlock();
  ssize_t count = 0;
  do {
    count = ::sendmsg(stream_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (count < 0 && errno == EINTR);
  const int error = errno;
  lock.lock();
  if (count < 0) {
    if (error != EAGAIN) {
      fail_writing(lock);
    }
    return false;
  }
  for (const auto& done : outbox_.written(static_cast<std::size_t>(count))) {
    if (done->sender != nullptr) {
      done->sender->wake();
    }
  }
  return true;
}

// Passes the writing to a thread that waits for its message to be written, else to the loop.
void Connection::release_writing(Lock& lock) {
  writer_ = Writer::kNone;
  if (!outbox_.empty()) {
    if (const loop::Waiter* sender = outbox_.waiting_sender()) {
      sender->wake();
    } else {
      writer_ = Writer::kLoop;
    }
  }
  update_interest(lock);
}

// What could not be written never will be. That the other side is gone the reader finds out, after
// it has read what had still arrived.
void Connection::fail_writing(Lock& lock) {
  static_cast<void>(lock);
  writing_failed_ = true;
  for (const auto& dropped : outbox_.clear()) {
    if (dropped->sender != nullptr) {
      dropped->sender->wake();
    }
  }
}

void Connection::update_interest(Lock& lock) {
  static_cast<void>(lock);
  // While the loop reads, its interest stays what it was.
  const std::uint32_t read = reader_ == Reader::kArmed  ? loop::kRead
                             : reader_ == Reader::kLoop ? interest_ & loop::kRead
                                                        : 0;
  const std::uint32_t write = writer_ == Writer::kLoop ? loop::kWrite : 0;
  if ((read | write) != interest_) {
    interest_ = read | write;
    loop_->set_interest(watch_, interest_);
  }
}

// --- Waiting and reading ---

bool Connection::wait_until(Lock& lock, const void* topic, const base::Wait& wait, const std::function<bool()>& ready) {
  if (ready()) {
    return true;
  }
  Waiting self(*this, lock, topic);
  base::Sleep sleep(wait);
  base::Woken woken = base::Woken::kReady;
  while (!ready()) {
    if (woken == base::Woken::kTimedOut) {
      return false;
    }
    if (woken == base::Woken::kSignal && wait.interrupted != nullptr) {
      // What runs now may wait on this very connection: it must find things in order.
      self.leave();
      lock.unlock();
      wait.interrupted();
      lock.lock();
      self.enter();
      woken = base::Woken::kReady;
      continue;
    }
    woken = self.sleep(sleep);
  }
  return true;
}

Connection::Waiting::Waiting(Connection& connection, Lock& lock, const void* topic)
    : connection_(connection), lock_(lock), waiter_(loop::Waiter::of_this_thread()), topic_(topic) {
  enter();
}

Connection::Waiting::~Waiting() {
  if (!lock_.owns_lock()) {
    lock_.lock();
  }
  if (entered_) {
    leave();
  }
}

void Connection::Waiting::enter() {
  connection_.waiting_.push_back(this);
  entered_ = true;
}

// Awake, it will look again before it sleeps.
void Connection::Waiting::wake() {
  if (std::exchange(asleep_, false)) {
    waiter_.wake();
  }
}

void Connection::Waiting::leave() {
  std::erase(connection_.waiting_, this);
  entered_ = false;
  if (std::exchange(reads_, false) && connection_.reader_ == Reader::kCaller) {
    connection_.reader_ = Reader::kNone;
  }
  connection_.settle_reading(lock_);
}

base::Woken Connection::Waiting::sleep(base::Sleep& sleep) {
  if (!reads_ && (connection_.reader_ == Reader::kNone || connection_.reader_ == Reader::kArmed)) {
    connection_.reader_ = Reader::kCaller;
    connection_.update_interest(lock_);
    reads_ = true;
  }
  std::array<pollfd, 2> fds{{{waiter_.fd(), POLLIN, 0}, {connection_.stream_.get(), POLLIN, 0}}};
  asleep_ = true;
  lock_.unlock();
  const base::Woken woken = sleep.until_ready(std::span(fds).first(reads_ ? 2 : 1));
  if (fds[0].revents != 0) {
    waiter_.clear();
  }
  if (reads_ && fds[1].revents != 0) {
    Incoming incoming = connection_.read_available();
    lock_.lock();
    asleep_ = false;
    ++connection_.activity_;
    if (incoming.ended) {
      reads_ = false;
    }
    connection_.take_in(lock_, std::move(incoming));
  } else {
    lock_.lock();
    asleep_ = false;
  }
  return woken;
}

void Connection::touch(Lock& lock, const void* topic) {
  static_cast<void>(lock);
  for (Waiting* waiting : waiting_) {
    if (waiting->is_for(topic)) {
      waiting->wake();
    }
  }
}

void Connection::touch_all(Lock& lock) {
  static_cast<void>(lock);
  for (Waiting* waiting : waiting_) {
    waiting->wake();
  }
}

// Called whenever nobody may be reading: finds the next one who will.
void Connection::settle_reading(Lock& lock) {
  if (reader_ != Reader::kNone) {
    return;
  }
  if (!waiting_.empty()) {
    waiting_.front()->wake();
  } else {
    start_ticking(lock);
  }
}

void Connection::start_ticking(Lock& lock) {
  static_cast<void>(lock);
  if (std::exchange(ticking_, true)) {
    return;
  }
  loop_->call_after(kTick, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->tick();
    }
  });
}

void Connection::tick() {
  auto lock = this->lock();
  ticking_ = false;
  const bool active = std::exchange(activity_seen_, activity_) != activity_;
  if (reader_ == Reader::kNone && waiting_.empty()) {
    if (!active) {
      arm(lock);
      return;
    }
    read_as_loop(lock);
  }
  if (reader_ == Reader::kNone) {
    settle_reading(lock);
  } else if (reader_ == Reader::kCaller && active) {
    start_ticking(lock);
  }  // without traffic it is a long wait: whoever ends it starts the ticking again
}

void Connection::arm(Lock& lock) {
  reader_ = Reader::kArmed;
  update_interest(lock);
}

void Connection::read_as_loop(Lock& lock) {
  reader_ = Reader::kLoop;
  lock.unlock();
  Incoming incoming = read_available();
  lock.lock();
  reader_ = Reader::kNone;
  take_in(lock, std::move(incoming));
}

void Connection::on_ready(std::uint32_t ready) {
  auto lock = this->lock();
  if ((ready & loop::kWrite) != 0 && writer_ == Writer::kLoop) {
    writer_ = Writer::kNone;
    write_without_waiting(lock);
  }
  if ((ready & loop::kRead) != 0 && reader_ == Reader::kArmed) {
    read_as_loop(lock);
    if (reader_ == Reader::kNone) {
      if (waiting_.empty()) {
        reader_ = Reader::kArmed;
      } else {
        waiting_.front()->wake();
      }
    }
    update_interest(lock);
  }
}

// One system call. The calling thread has the reading, and not the lock.
Connection::Incoming Connection::read_available() {
  Incoming incoming;
  try {
    if (noise_) {
      std::array<char, 4096> bytes;
      look_for_magic({bytes.data(), receive_into(bytes, incoming)}, incoming);
    } else {
      parser_.received(receive_into(parser_.space(), incoming));
      parse(incoming);
    }
  } catch (const std::exception& error) {
    incoming.ended = true;
    incoming.error = error.what();
  }
  return incoming;
}

std::size_t Connection::receive_into(std::span<char> space, Incoming& incoming) {
  ssize_t count = 0;
  do {
    count = ::recv(stream_.get(), space.data(), space.size(), MSG_DONTWAIT);
  } while (count < 0 && errno == EINTR);
  if (count > 0) {
    return static_cast<std::size_t>(count);
  }
  incoming.ended = count == 0 || errno != EAGAIN;
  if (count == 0 && parser_.within_frame()) {
    incoming.error = "the stream ended in the middle of a frame";
  }
  return 0;
}

void Connection::parse(Incoming& incoming) {
  while (auto frame = parser_.next()) {
    if (auto message = assembler_.add(std::move(*frame))) {
      incoming.messages.push_back(std::move(*message));
    }
  }
}

// A login shell may print things before the worker does.
void Connection::look_for_magic(std::string_view bytes, Incoming& incoming) {
  noise_->append(bytes);
  const std::size_t at = noise_->find(wire::kMagic);
  if (at == std::string::npos) {
    if (noise_->size() > kMostNoise || (incoming.ended && !noise_->empty())) {
      throw wire::ProtocolError("no worker, but this on its stdout: " + noise_->substr(0, kNoiseShown));
    }
    return;
  }
  std::string_view rest = std::string_view(*noise_).substr(at + wire::kMagic.size());
  while (!rest.empty()) {
    const std::span<char> space = parser_.space();
    const std::size_t size = std::min(space.size(), rest.size());
    std::copy_n(rest.begin(), size, space.begin());
    rest.remove_prefix(size);
    parser_.received(size);
    parse(incoming);
  }
  noise_.reset();
}

void Connection::take_in(Lock& lock, Incoming incoming) {
  const auto owner = owner_.lock();
  try {
    for (wire::Message& message : incoming.messages) {
      if (owner && !gone_) {
        dispatch(lock, *owner, std::move(message));
      }
    }
  } catch (const std::exception& error) {
    incoming.ended = true;
    incoming.error = error.what();
  }
  if (incoming.ended) {
    reader_ = Reader::kEnded;
    update_interest(lock);
    lock.unlock();
    shut_down();
    if (owner) {
      owner->on_stream_end(incoming.error);
    }
    lock.lock();
  }
}

void Connection::dispatch(Lock& lock, ConnectionOwner& owner, wire::Message message) {
  const std::uint32_t id = message.channel;
  switch (message.type) {
    case wire::FrameType::kHello:
      owner.on_hello(std::move(message.payload));
      touch(lock, this);
      break;
    case wire::FrameType::kExec:
      if (side_ != Side::kWorker || is_ours(id)) {
        throw wire::ProtocolError("EXEC for channel " + std::to_string(id) + " came from the wrong side");
      }
      if (const auto state = state_for(lock, id)) {
        owner.on_exec(lock, state, std::move(message.payload));
        touch(lock, this);
      }
      break;
    case wire::FrameType::kData:
      if (const auto state = state_for(lock, id); state && !state->closed && !state->no_more_items) {
        if (state->callback) {
          dispatcher_.push(lock, state, std::move(message.payload));
        } else {
          state->items.push_back(std::move(message.payload));
          touch(lock, state.get());
        }
      }
      break;
    case wire::FrameType::kClose: on_peer_close(lock, id, std::nullopt); break;
    case wire::FrameType::kCloseError: on_peer_close(lock, id, text_of(message.payload)); break;
    case wire::FrameType::kLast:
      if (const auto state = state_for(lock, id)) {
        end_items(lock, state);
      }
      break;
    case wire::FrameType::kTerminate:
      owner.on_terminate(lock);
      touch(lock, this);
      break;
    case wire::FrameType::kStatus: owner.on_status_request(lock, id); break;
    case wire::FrameType::kReconfigure: {
      const auto [py2str_as_py3str, py3str_as_py2str] =
          decode_value(message.payload.view()).as<std::pair<bool, bool>>();
      const StringConfig strings{py2str_as_py3str, py3str_as_py2str};
      if (id == 0) {
        strings_ = strings;
      } else if (const auto state = state_for(lock, id)) {
        state->strings = strings;
      }
      break;
    }
    case wire::FrameType::kCredit: break;  // no window here
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
  auto state = std::make_shared<ChannelState>(id);
  state->no_more_items = receiving_ended_;
  channels_.emplace(id, state);
  return state;
}

std::shared_ptr<ChannelHandle> Connection::new_channel(Lock& lock) {
  auto state = std::make_shared<ChannelState>(next_id_);
  state->lost = state->closed = gone_.has_value();
  state->no_more_items = gone_ || receiving_ended_;
  if (!gone_) {
    channels_.emplace(next_id_, state);
  }
  next_id_ += 2;
  return handle(lock, state);
}

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
  if (!std::exchange(state->no_more_items, true) && state->callback) {
    dispatcher_.push(lock, state, std::nullopt);
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
  for (auto& [id, state] : channels_) {
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
  if (writer_ == Writer::kNone) {
    fail_writing(lock);
  }
  touch_all(lock);
}

const std::optional<std::string>& Connection::gone(const Lock& lock) const {
  static_cast<void>(lock);
  return gone_;
}

void Connection::shut_down() { ::shutdown(stream_.get(), SHUT_RDWR); }

void Connection::throw_gone(Lock& lock) {
  wait_until(lock, this, {.deadline = base::Clock::now() + kCauseIsKnownWithin}, [&] { return gone_.has_value(); });
  throw GatewayGone(gone_.value_or("the connection is broken"));
}

}  // namespace execnet::core
