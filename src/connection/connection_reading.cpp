// The part of Connection that waits and reads. See connection.hpp.
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <execnet/error.hpp>
#include <utility>

#include "base/printable.hpp"
#include "base/syscall.hpp"
#include "connection/connection.hpp"
#include "connection/relay.hpp"
#include "connection/value_message.hpp"

namespace execnet::core {
namespace {

constexpr std::chrono::milliseconds kTick{1};
// Messages at longer intervals may take the way over a thread that waits for another.
constexpr std::chrono::microseconds kConversation{300};
constexpr int kReadsInARow = 16;  // of one ring, by the loop, which has others to read
constexpr std::size_t kMostNoise = std::size_t{64} * 1024;
constexpr std::size_t kNoiseShown = 400;

std::string text_of(const base::Buffer& payload) { return decode_value(payload.view()).as<std::string>(); }

}  // namespace

bool Connection::wait_until(Lock& lock, const void* topic, const base::Wait& wait, const std::function<bool()>& ready) {
  if (ready()) {
    return true;
  }
  if (wait.hub != nullptr) {
    return wait_parked(lock, topic, wait, ready);
  }
  Waiting self(*this, lock, topic, true);
  self.enter();
  base::Sleep sleep(wait);
  base::Woken woken = base::Woken::kReady;
  while (!ready()) {
    if (woken == base::Woken::kTimedOut) {
      if (self.stands_back()) {  // its message may lie there
        self.look();
      }
      return ready();
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

bool Connection::wait_parked(Lock& lock, const void* topic, const base::Wait& wait,
                             const std::function<bool()>& ready) {
  Parked self(*this, lock, topic);
  while (!ready()) {
    if (base::has_passed(wait.deadline)) {
      return false;
    }
    self.sleep(wait);
  }
  return true;
}

Connection::Parked::Parked(Connection& connection, Lock& lock, const void* topic)
    : connection_(connection), lock_(lock), bell_(std::make_shared<Bell>(topic)) {
  connection_.parked_.push_back(bell_);
  connection_.settle_reading(lock_);
}

Connection::Parked::~Parked() {
  if (!lock_.owns_lock()) {
    lock_.lock();
  }
  std::erase(connection_.parked_, bell_);
}

void Connection::Parked::sleep(const base::Wait& wait) {
  lock_.unlock();
  wait.hub->wait_readable(bell_->waiter.fd(), wait.deadline);
  lock_.lock();
  if (std::exchange(bell_->rung, false)) {
    bell_->waiter.clear();
  }
}

void Connection::Bell::ring() {
  if (!std::exchange(rung, true)) {
    waiter.wake();
  }
}

Connection::Waiting::Waiting(Connection& connection, Lock& lock, const void* topic, bool for_message)
    : connection_(connection),
      lock_(lock),
      waiter_(loop::Waiter::of_this_thread()),
      topic_(topic),
      for_message_(for_message) {}

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

void Connection::Waiting::wake() {
  if (std::exchange(asleep_, false)) {
    connection_.woken_ += stands_back_ ? 0 : 1;
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

base::Woken Connection::Waiting::sleep(base::Sleep& sleep, bool for_room) {
  if (!reads_ && !stands_back_ && (connection_.reader_ == Reader::kNone || connection_.reader_ == Reader::kArmed)) {
    connection_.reader_ = Reader::kCaller;
    connection_.update_interest(lock_);
    reads_ = true;
  }
  const auto wanted = static_cast<short>((reads_ ? POLLIN : 0) | (for_room ? POLLOUT : 0));
  std::array<pollfd, 2> fds{{{waiter_.fd(), POLLIN, 0}, {connection_.link_.fd(), wanted, 0}}};
  asleep_ = true;
  lock_.unlock();
  base::Woken woken = base::Woken::kReady;
  const auto begin = base::Clock::now();
  bool there = reads_ && connection_.comes_soon(for_message_);
  if (!there) {
    woken = sleep.until_ready(std::span(fds).first(wanted != 0 ? 2 : 1));
    there = reads_ && (fds[1].revents & ~POLLOUT) != 0;
    if (there && for_message_) {
      const auto slept = base::Clock::now() - begin;
      connection_.spin_.slept(slept);
      if (slept > kConversation) {
        for_others_ = 0;
      }
    }
    if (fds[0].revents != 0) {
      waiter_.clear();
    }
  }
  if (there) {
    read();
  } else {
    lock_.lock();
    asleep_ = false;
  }
  return woken == base::Woken::kReady ? sleep.instead(begin) : woken;
}

// Without the lock; has it again.
void Connection::Waiting::read() {
  Incoming incoming = connection_.read_available();
  lock_.lock();
  asleep_ = false;
  ++connection_.activity_;
  const std::uint64_t woken = connection_.woken_;
  connection_.take_in(lock_, std::move(incoming));
  reads_ = connection_.reader_ == Reader::kCaller;  // or the stream has ended, by what was in it
  if (reads_ && for_message_ && connection_.woken_ != woken && ++for_others_ == kMostForOthers) {
    stand_back();
  }
}

// Those whom it has read for, at short intervals, are in a conversation, and can read it themselves: a wake-up less for
// each message. Was one of them for this thread, then its wait is over.
void Connection::Waiting::stand_back() {
  stands_back_ = true;
  reads_ = false;
  connection_.reader_ = Reader::kNone;
  connection_.settle_reading(lock_);
}

void Connection::Waiting::look() {
  if (!reads_ && connection_.reader_ == Reader::kNone) {
    connection_.reader_ = Reader::kCaller;
    reads_ = true;
  }
  if (reads_ && (!connection_.link_.reads_ring() || connection_.link_.readable())) {
    lock_.unlock();
    read();
  }
}

void Connection::touch(Lock& lock, const void* topic) {
  static_cast<void>(lock);
  for (Waiting* waiting : waiting_) {
    if (waiting->is_for(topic)) {
      waiting->wake();
    }
  }
  for (const auto& bell : parked_) {
    if (bell->topic == topic) {
      bell->ring();
    }
  }
}

void Connection::touch_all(Lock& lock) {
  static_cast<void>(lock);
  for (Waiting* waiting : waiting_) {
    waiting->wake();
  }
  for (const auto& bell : parked_) {
    bell->ring();
  }
}

// Called whenever nobody may be reading: finds the next one who will.
void Connection::settle_reading(Lock& lock) {
  if (reader_ != Reader::kNone) {
    return;
  }
  if (has_readers(lock)) {
    wake_a_reader(lock);
  } else if (!parked_.empty() || (writer_ == Writer::kLoop && link_.writes_ring())) {  // who waits for the bell
    arm(lock);
  } else {
    start_ticking(lock);
  }
}

// Whether one of those that wait would read.
bool Connection::has_readers(Lock& lock) const {
  static_cast<void>(lock);
  return std::any_of(waiting_.begin(), waiting_.end(), [](const Waiting* one) { return !one->stands_back(); });
}

// Of these, one that sleeps. Who does not will look before it sleeps, and while it writes.
void Connection::wake_a_reader(Lock& lock) {
  static_cast<void>(lock);
  const auto found = std::find_if(waiting_.begin(), waiting_.end(), [](const Waiting* one) { return one->may_read(); });
  if (found != waiting_.end()) {
    (*found)->wake();
  }
}

void Connection::start_ticking(Lock& lock) {
  static_cast<void>(lock);
  if (ticking_) {
    return;
  }
  loop_->call_after(kTick, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->tick();
    }
  });
  ticking_ = true;
}

void Connection::tick() {
  auto lock = this->lock();
  ticking_ = false;
  const bool active = std::exchange(activity_seen_, activity_) != activity_;
  if (reader_ == Reader::kNone && !has_readers(lock) && !active) {
    arm(lock);
  } else if (reader_ == Reader::kNone) {
    settle_reading(lock);
  } else if (reader_ == Reader::kCaller && active) {
    start_ticking(lock);
  }  // without traffic it is a long wait: whoever ends it starts the ticking again
}

void Connection::arm(Lock& lock) {
  reader_ = Reader::kArmed;
  update_interest(lock);
  if (!link_.may_sleep_reading()) {  // the socket does not tell of what is in the ring already
    loop_->call_after(std::chrono::milliseconds(0), [weak = weak_from_this()] {
      if (const auto self = weak.lock()) {
        self->on_ready(loop::kRead);
      }
    });
  }
}

// Whether there is something to read, now or, if it spins, within the moment that is worth waiting for awake. If not,
// the other side rings the bell for what comes next. The calling thread has the reading, and not the lock.
bool Connection::comes_soon(bool spins) {
  if (!link_.reads_ring()) {
    return false;
  }
  link_.is_awake();
  return (spins && spin_.until([&] { return link_.readable(); })) || !link_.may_sleep_reading();
}

void Connection::read_as_loop(Lock& lock) {
  reader_ = Reader::kLoop;
  lock.unlock();
  Incoming incoming = read_available();
  lock.lock();
  take_in(lock, std::move(incoming));  // may let go of the lock: nobody is to read what comes next before it is done
  if (reader_ == Reader::kLoop) {
    reader_ = Reader::kNone;
  }
}

void Connection::on_ready(std::uint32_t ready) {
  auto lock = this->lock();
  if ((ready & loop::kWrite) != 0 && writer_ == Writer::kLoop) {
    writer_ = Writer::kNone;
    write_without_waiting(lock);
  }
  if ((ready & loop::kRead) != 0 && reader_ == Reader::kArmed) {
    int reads = 0;
    do {
      read_as_loop(lock);
    } while (reader_ == Reader::kNone && !has_readers(lock) && link_.readable() && ++reads < kReadsInARow);
    if (reader_ == Reader::kNone) {
      if (!has_readers(lock)) {
        arm(lock);
        return;
      }
      wake_a_reader(lock);
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
  const Link::Got got = link_.read(space);
  incoming.bell = got.bell;
  incoming.ended = got.ended;
  if (got.ended && parser_.within_frame()) {
    incoming.error = "the stream ended in the middle of a frame";
  }
  return got.count;
}

void Connection::parse(Incoming& incoming) {
  while (auto frame = parser_.next(&assembler_)) {
    if (auto message = assembler_.add(std::move(*frame))) {
      incoming.messages.push_back(std::move(*message));
    }
  }
}

// What comes next comes by the ring. The worker answers with the same.
void Connection::on_rings(Lock& lock) {
  if (!link_.has_rings() || link_.reads_ring() || parser_.within_frame()) {
    throw wire::ProtocolError("RINGS came where it makes no sense");
  }
  link_.read_from_ring();
  on_bell(lock);
  if (side_ == Side::kWorker) {
    switch_to_ring(lock);
  }
}

// A login shell may print things before the worker does.
void Connection::look_for_magic(std::string_view bytes, Incoming& incoming) {
  noise_->append(bytes);
  const std::size_t at = noise_->find(wire::kMagic);
  if (at == std::string::npos) {
    if (noise_->size() > kMostNoise || (incoming.ended && !noise_->empty())) {
      throw wire::ProtocolError("no worker, but this on its stdout: " +
                                base::printable(noise_->substr(0, kNoiseShown)));
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
  // The owner's end ends this connection, which takes the lock: without it the reference is let go, which may
  // be the last. So there is one only if it is needed, and until all messages are taken in.
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
  } catch (const std::exception& error) {
    incoming.ended = true;
    incoming.error = error.what();
  }
  const bool waits_for_room = waits_for_room_ != nullptr || writer_ == Writer::kLoop;
  if (incoming.bell || (waits_for_room && link_.was_woken_to_write())) {  // while data comes, no bell is read
    on_bell(lock);
  }
  if (incoming.ended) {
    reader_ = Reader::kEnded;
    update_interest(lock);
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

bool Connection::is_for_owner(wire::FrameType type) {
  switch (type) {
    case wire::FrameType::kHello:
    case wire::FrameType::kExec:
    case wire::FrameType::kOpen:
    case wire::FrameType::kTerminate:
    case wire::FrameType::kStatus: return true;
    default: return false;
  }
}

void Connection::dispatch_to_owner(Lock& lock, ConnectionOwner& owner, wire::Message message) {
  const std::uint32_t id = message.channel;
  switch (message.type) {
    case wire::FrameType::kHello:
      owner.on_hello(lock, std::move(message.payload));
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
    case wire::FrameType::kOpen:
      if (side_ != Side::kWorker || is_ours(id)) {
        throw wire::ProtocolError("OPEN for channel " + std::to_string(id) + " came from the wrong side");
      }
      if (const auto state = state_for(lock, id)) {
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

void Connection::dispatch(Lock& lock, wire::Message message) {
  const std::uint32_t id = message.channel;
  switch (message.type) {
    case wire::FrameType::kData:
      if (const auto state = state_for(lock, id); state && !state->closed && !state->no_more_items) {
        if (!state->flow.on_arrived(message.payload.size())) {
          throw wire::ProtocolError("more bytes than the window allows on channel " + std::to_string(id));
        }
        if (const auto relay = state->relay.lock()) {
          relay->on_item(lock, std::move(message.payload));
        } else if (state->callback) {
          dispatcher_.push(lock, state, std::move(message.payload));
        } else {
          state->items.push_back(std::move(message.payload));
          touch(lock, state.get());
        }
      }
      break;
    case wire::FrameType::kClose: on_peer_close(lock, id, std::nullopt); break;
    case wire::FrameType::kCloseError: on_peer_close(lock, id, base::printable(text_of(message.payload))); break;
    case wire::FrameType::kLast:
      if (const auto state = state_for(lock, id)) {
        end_items(lock, state);
      }
      break;
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
    case wire::FrameType::kCredit: on_credit(lock, id, message.credit); break;
    case wire::FrameType::kWindow: on_window(lock, id, message.payload); break;
    case wire::FrameType::kRings: on_rings(lock); break;
    default: break;
  }
}

}  // namespace execnet::core
