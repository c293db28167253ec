// The part of Connection that writes. See connection.hpp.
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <execnet/error.hpp>
#include <utility>

#include "base/syscall.hpp"
#include "connection/connection.hpp"

namespace execnet::core {
namespace {

constexpr std::size_t kMostParts = 64;
constexpr std::size_t kMostAtOnce = std::size_t{16} << 10;  // copied with the mutex held
static_assert(kMostAtOnce < base::Rope::kWorthLending);
constexpr std::size_t kMostUnwatched = std::size_t{16} << 20;  // written before anything else is looked at
constexpr const char* kLate = "the other side did not take the message in time";

}  // namespace

void Connection::send(Lock& lock, wire::FrameType type, std::uint32_t channel, base::Rope payload,
                      const base::Wait& wait) {
  if (gone_ || writing_failed_) {
    throw_gone(lock, wait);
  }
  if (write_to_ring_at_once(lock, type, channel, payload)) {
    return;
  }
  const auto message = std::make_shared<Outgoing>();
  message->type = type;
  message->channel = channel;
  message->payload = std::move(payload);
  outbox_.push(message);
  // What takes long is written where deadline and signals are looked at.
  if (writer_ == Writer::kNone && (wait.hub != nullptr || message->payload.size() <= kMostUnwatched)) {
    write_without_waiting(lock);
  }
  if (message->written) {
    return;
  }
  Writing self(*this, lock, message);
  if (wait.hub != nullptr) {  // the loop writes it
    const auto decided = [&] { return message->written || gone_ || writing_failed_; };
    if (!wait_until(lock, message.get(), wait, decided)) {
      if (self.take_back()) {
        throw TimeoutError(kLate);
      }
      return;
    }
    if (!message->written) {
      throw_gone(lock, wait);
    }
    return;
  }
  base::Sleep sleep(wait);
  while (!message->written) {
    if (gone_ || writing_failed_) {
      self.leave();
      throw_gone(lock);
    }
    switch (self.sleep(sleep)) {
      case base::Woken::kReady: break;
      case base::Woken::kTimedOut:
        if (gone_ || writing_failed_) {
          break;
        }
        if (self.take_back()) {
          throw TimeoutError(kLate);
        }
        return;
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
    : connection_(connection),
      lock_(lock),
      message_(std::move(message)),
      waiting_(connection, lock, message_.get(), false) {}

Connection::Writing::~Writing() {
  if (!lock_.owns_lock()) {
    lock_.lock();
  }
  try {
    take_back();
  } catch (const std::exception&) {  // no memory to say that a part of it is to be forgotten
    connection_.shut_down();
  }
}

bool Connection::Writing::take_back() {
  leave();
  if (message_->written || !connection_.outbox_.retract(message_)) {
    return false;
  }
  if (message_->type == wire::FrameType::kData) {
    if (const auto found = connection_.channels_.find(message_->channel); found != connection_.channels_.end()) {
      found->second->flow.on_taken_back(message_->payload.size());
      connection_.touch(lock_, found->second.get());
    }
  }
  return true;
}

void Connection::Writing::leave() {
  message_->sender = nullptr;
  if (connection_.waits_for_room_ == &waiting_) {
    connection_.waits_for_room_ = nullptr;
  }
  // If nobody has it, it may have been passed to this thread, which has not taken it.
  if (std::exchange(writes_, false) || connection_.writer_ == Writer::kNone) {
    connection_.release_writing(lock_);
  }
  if (waiting_.entered()) {
    waiting_.leave();
  }
}

base::Woken Connection::Writing::sleep(base::Sleep& sleep) {
  if (!waiting_.entered()) {
    waiting_.enter();
  }
  if (connection_.writer_ != Writer::kCaller) {  // taken from the loop, too: one wake-up less
    connection_.writer_ = Writer::kCaller;
    connection_.update_interest(lock_);
    writes_ = true;
  }
  base::Woken woken = base::Woken::kReady;
  const bool for_ring = writes_ && connection_.link_.writes_ring();
  if (!writes_ || connection_.link_.may_sleep_writing()) {
    message_->sender = writes_ ? nullptr : &waiting_.waiter();
    if (for_ring) {
      connection_.waits_for_room_ = &waiting_;
    }
    woken = waiting_.sleep(sleep, writes_ && !for_ring);
    if (for_ring) {
      connection_.waits_for_room_ = nullptr;
    }
    message_->sender = nullptr;
  }
  while (writes_ && !message_->written && connection_.write_batch(lock_)) {
    if (!message_->written) {
      waiting_.look();
      if (woken == base::Woken::kReady) {
        woken = sleep.instead(base::Clock::now());
      }
      if (woken != base::Woken::kReady) {
        break;
      }
    }
  }
  return message_->written ? base::Woken::kReady : woken;
}

// What fits, and has nothing before it, needs no queue: two copies and no system call.
bool Connection::write_to_ring_at_once(Lock& lock, wire::FrameType type, std::uint32_t channel,
                                       const base::Rope& payload) {
  static_cast<void>(lock);
  if (!link_.writes_ring() || payload.size() > kMostAtOnce || writer_ != Writer::kNone || !outbox_.empty()) {
    return false;
  }
  auto header = wire::pack({.type = type, .channel = channel, .length = static_cast<std::uint32_t>(payload.size())});
  const std::string_view bytes = payload.view();  // too small for anything lent
  const std::array<iovec, 2> parts{{{header.data(), header.size()}, {const_cast<char*>(bytes.data()), bytes.size()}}};
  return link_.write_whole(parts);
}

void Connection::post(Lock& lock, wire::FrameType type, std::uint32_t channel, base::Rope payload) {
  if (!gone_ && write_to_ring_at_once(lock, type, channel, payload)) {
    return;
  }
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

void Connection::agree_on_rings(Lock& lock) {
  static_cast<void>(lock);
  rings_agreed_ = link_.has_rings();
}

void Connection::use_rings(Lock& lock) {
  if (std::exchange(rings_agreed_, false)) {
    switch_to_ring(lock);
  }
}

void Connection::switch_to_ring(Lock& lock) {
  to_ring_ = true;
  switch_if_idle(lock);
}

// The ring continues what is on the socket, so nothing may be on its way there.
void Connection::switch_if_idle(Lock& lock) {
  static_cast<void>(lock);
  if (!to_ring_ || writer_ != Writer::kNone || !outbox_.empty()) {
    return;
  }
  auto header = wire::pack({.type = wire::FrameType::kRings});
  const iovec part{header.data(), header.size()};
  if (link_.write(std::span(&part, 1)) == static_cast<ssize_t>(header.size())) {
    link_.write_to_ring();
    to_ring_ = false;
  }
}

void Connection::post_later(Lock& lock, wire::FrameType type, std::uint32_t channel) {
  static_cast<void>(lock);
  auto message = std::make_shared<Outgoing>();
  message->type = type;
  message->channel = channel;
  outbox_.push(std::move(message));
}

// Writes what is queued as long as the operating system takes it, and nobody waits to do it.
// REQUIRES: writer_ is kNone.
void Connection::write_without_waiting(Lock& lock) {
  writer_ = Writer::kCaller;
  while (!outbox_.empty() && outbox_.waiting_sender() == nullptr && (write_batch(lock) || !link_.may_sleep_writing())) {
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
  const std::size_t gathered = outbox_.gather(parts);
  if (gathered == 0) {
    return false;
  }
  lock.unlock();
  const ssize_t count = link_.write(std::span(parts).first(gathered));
  lock.lock();
  if (count <= 0) {
    if (count < 0) {
      fail_writing(lock);
    }
    return false;
  }
  for (const auto& done : outbox_.written(static_cast<std::size_t>(count))) {
    tell_sender(lock, *done);
  }
  return true;
}

// That its message is written, or never will be.
void Connection::tell_sender(Lock& lock, const Outgoing& message) {
  if (message.sender != nullptr) {
    message.sender->wake();
  } else if (!parked_.empty()) {
    touch(lock, &message);
  }
}

// Passes the writing to a thread that waits for its message to be written, else to the loop.
void Connection::release_writing(Lock& lock) {
  writer_ = Writer::kNone;
  if (!outbox_.empty()) {
    if (const loop::Waiter* sender = outbox_.waiting_sender()) {
      sender->wake();
    } else {
      writer_ = Writer::kLoop;
      if (link_.writes_ring()) {
        if (link_.may_sleep_writing()) {
          see_that_the_bell_is_heard(lock);
        } else {  // no bell is rung for room that is there already
          loop_->call_after(std::chrono::milliseconds(0), [weak = weak_from_this()] {
            if (const auto self = weak.lock()) {
              self->guarded([&] {
                auto own = self->lock();
                self->on_bell(own);
              });
            }
          });
        }
      }
    }
  }
  switch_if_idle(lock);
  update_interest(lock);
}

// There may be room in the ring again.
void Connection::on_bell(Lock& lock) {
  if (waits_for_room_ != nullptr) {
    waits_for_room_->wake();
  } else if (writer_ == Writer::kLoop) {
    writer_ = Writer::kNone;
    write_without_waiting(lock);
  }
}

// That is for who reads, so somebody has to.
void Connection::see_that_the_bell_is_heard(Lock& lock) {
  if (reader_ == Reader::kNone) {
    arm(lock);
  }
}

// What could not be written never will be. That the other side is gone the reader finds out, after
// it has read what had still arrived.
void Connection::fail_writing(Lock& lock) {
  writing_failed_ = true;
  for (const auto& dropped : outbox_.clear()) {
    tell_sender(lock, *dropped);
  }
}

void Connection::update_interest(Lock& lock) {
  static_cast<void>(lock);
  // While the loop reads, its interest stays what it was.
  const std::uint32_t read = reader_ == Reader::kArmed  ? loop::kRead
                             : reader_ == Reader::kLoop ? interest_ & loop::kRead
                                                        : 0;
  const std::uint32_t write = writer_ == Writer::kLoop && !link_.writes_ring() ? loop::kWrite : 0;
  if ((read | write) != interest_) {
    interest_ = read | write;
    loop_->set_interest(watch_, interest_);
  }
}

}  // namespace execnet::core
