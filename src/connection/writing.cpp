#include "connection/writing.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <exception>
#include <span>
#include <string_view>
#include <utility>

#include "connection/deflating.hpp"

namespace execnet::core {
namespace {

constexpr std::size_t kMostParts = 64;
constexpr std::size_t kMostAtOnce = std::size_t{16} << 10;  // copied with the mutex held
static_assert(kMostAtOnce < base::Rope::kWorthLending);
constexpr std::size_t kMostUnwatched = std::size_t{16} << 20;  // written before anything else is looked at
constexpr std::size_t kMostLater = 64;

std::shared_ptr<Outgoing> outgoing(wire::FrameType type, std::uint32_t channel, base::Rope&& payload = {}) {
  auto message = std::make_shared<Outgoing>();
  message->type = type;
  message->channel = channel;
  message->payload = std::move(payload);
  return message;
}

}  // namespace

Writing::Writing(Link& link, Roles& roles, Waits& waits, Reading& reading, Sender& sender)
    : link_(link), roles_(roles), waits_(waits), reading_(reading), sender_(sender) {}

Writing::~Writing() = default;

// --- Sending ---

Writing::Sent Writing::send(Lock& lock, wire::FrameType type, std::uint32_t channel, base::Rope&& payload,
                            const base::Wait& wait) {
  if (failed_) {
    return Sent::kBroken;
  }
  if (write_to_ring_at_once(type, channel, payload)) {
    return Sent::kYes;
  }
  const auto message = outgoing(type, channel, std::move(payload));
  outbox_.push(message);
  // What takes long is written where deadline and signals are looked at.
  if (roles_.writer == Writer::kNone && (wait.hub != nullptr || message->payload.size() <= kMostUnwatched)) {
    write_without_waiting(lock);
  }
  if (message->written) {
    return Sent::kYes;
  }
  if (wait.hub != nullptr) {
    return send_in_greenlet(lock, message, wait);
  }
  Sending self(*this, lock, message);
  base::Sleep sleep(wait);
  while (!message->written) {
    if (failed_) {
      return Sent::kBroken;
    }
    switch (self.sleep(sleep)) {
      case base::Woken::kReady: break;
      case base::Woken::kTimedOut:
        if (failed_) {
          break;
        }
        return self.take_back() ? Sent::kLate : Sent::kYes;
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
  return Sent::kYes;
}

// The loop writes for a greenlet.
Writing::Sent Writing::send_in_greenlet(Lock& lock, const std::shared_ptr<Outgoing>& message, const base::Wait& wait) {
  Sending self(*this, lock, message);
  if (!reading_.wait_until(lock, message.get(), wait, [&] { return message->written || failed_; })) {
    return self.take_back() ? Sent::kLate : Sent::kYes;
  }
  return message->written ? Sent::kYes : Sent::kBroken;
}

Writing::Sending::Sending(Writing& writing, Lock& lock, std::shared_ptr<Outgoing> message)
    : writing_(writing),
      lock_(lock),
      message_(std::move(message)),
      thread_(writing.reading_, lock, message_.get(), Reading::Thread::For::kRoom) {
  writing_.sending_.push_back(message_.get());
}

Writing::Sending::~Sending() {
  if (!lock_.owns_lock()) {
    lock_.lock();
  }
  std::erase(writing_.sending_, message_.get());
  try {
    take_back();
  } catch (const std::exception&) {  // No memory to say that a part of it is to be forgotten.
    writing_.link_.shut_down();
  }
}

bool Writing::Sending::take_back() {
  leave();
  if (message_->written || !writing_.outbox_.retract(message_)) {
    return false;
  }
  writing_.sender_.on_taken_back(lock_, *message_);
  return true;
}

void Writing::Sending::leave() {
  message_->sender = nullptr;
  if (writing_.waits_for_room_ == &thread_.waiting()) {
    writing_.waits_for_room_ = nullptr;
  }
  // If nobody has it, it may have been passed to this thread, which has not taken it.
  if (std::exchange(writes_, false) || writing_.roles_.writer == Writer::kNone) {
    writing_.release(lock_);
  }
  if (thread_.entered()) {
    thread_.leave();
  }
}

base::Woken Writing::Sending::sleep(base::Sleep& sleep) {
  if (!thread_.entered()) {
    thread_.enter();
  }
  if (writing_.roles_.writer != Writer::kCaller) {  // taken from the loop, too: one wake-up less
    writing_.roles_.writer = Writer::kCaller;
    writing_.roles_.update_interest();
    writes_ = true;
  }
  base::Woken woken = base::Woken::kReady;
  const bool for_ring = writes_ && writing_.link_.writes_ring();
  if (!writes_ || writing_.link_.may_sleep_writing()) {
    message_->sender = writes_ ? nullptr : &thread_.waiting().waiter();
    if (for_ring) {
      writing_.waits_for_room_ = &thread_.waiting();
    }
    woken = thread_.sleep(sleep, writes_ && !for_ring);
    if (for_ring) {
      writing_.waits_for_room_ = nullptr;
    }
    message_->sender = nullptr;
  }
  while (writes_ && !message_->written && writing_.write_batch(lock_)) {
    if (!message_->written) {
      thread_.look();
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

// --- Posting ---

void Writing::push(Lock& lock, std::shared_ptr<Outgoing> message) {
  replies_ += message->reply ? 1 : 0;
  outbox_.push(std::move(message));
  if (roles_.writer == Writer::kNone) {
    write_without_waiting(lock);
  }
}

void Writing::post(Lock& lock, wire::FrameType type, std::uint32_t channel, base::Rope&& payload) {
  if (failed_ || !write_to_ring_at_once(type, channel, payload)) {
    push(lock, outgoing(type, channel, std::move(payload)));
  }
}

void Writing::post_reply(Lock& lock, wire::FrameType type, std::uint32_t channel, base::Rope&& payload) {
  if (failed_ || !write_to_ring_at_once(type, channel, payload)) {
    auto message = outgoing(type, channel, std::move(payload));
    message->reply = true;
    push(lock, std::move(message));
  }
}

void Writing::post_reply_later(Lock& lock, wire::FrameType type, std::uint32_t channel) {
  auto message = outgoing(type, channel);
  message->reply = true;
  ++replies_;
  outbox_.push(std::move(message));
  if (++later_ >= kMostLater && roles_.writer == Writer::kNone) {
    write_without_waiting(lock);
  }
}

void Writing::post_raw(Lock& lock, base::Buffer bytes) {
  auto message = outgoing(wire::FrameType::kHello, 0, std::move(bytes));
  message->raw = true;
  push(lock, std::move(message));
}

void Writing::post_credit(Lock& lock, std::uint32_t channel, std::uint32_t bytes) {
  auto message = outgoing(wire::FrameType::kCredit, channel);
  message->credit = bytes;
  push(lock, std::move(message));
}

void Writing::post_passed(Lock& lock, std::uint32_t number) {
  auto message = outgoing(wire::FrameType::kPassed, 0);
  message->credit = number;
  message->reply = message->urgent = true;
  push(lock, std::move(message));
}

// --- Compressing ---

void Writing::deflate() { deflating_ = std::make_unique<Deflating>(); }

void Writing::on_passed(std::uint32_t number) {
  if (!deflating_) {
    throw wire::ProtocolError("PASSED came, and there are no probes");
  }
  deflating_->passed(number);
}

// --- Rings ---

// What fits, and has nothing before it, needs no queue: two copies and no system call. With a trace it takes the queue,
// as all frames that are traced.
bool Writing::write_to_ring_at_once(wire::FrameType type, std::uint32_t channel, const base::Rope& payload) {
  if (!link_.writes_ring() || payload.size() > kMostAtOnce || roles_.writer != Writer::kNone || !outbox_.empty() ||
      trace_ != nullptr) {
    return false;
  }
  auto header = wire::pack({.type = type, .channel = channel, .length = static_cast<std::uint32_t>(payload.size())});
  const std::string_view bytes = payload.view();  // too small for anything lent
  const std::array<iovec, 2> parts{{{header.data(), header.size()}, {const_cast<char*>(bytes.data()), bytes.size()}}};
  return link_.write_whole(parts);
}

void Writing::switch_to_ring() {
  to_ring_ = true;
  switch_if_idle();
}

// The ring continues what is on the socket, so nothing may be on its way there.
void Writing::switch_if_idle() {
  if (!to_ring_ || roles_.writer != Writer::kNone || !outbox_.empty()) {
    return;
  }
  if (trace_ != nullptr) {
    trace_->sends({.type = wire::FrameType::kRings}, {});
  }
  auto header = wire::pack({.type = wire::FrameType::kRings});
  const iovec part{header.data(), header.size()};
  if (link_.write(std::span(&part, 1)) == static_cast<ssize_t>(header.size())) {
    link_.write_to_ring();
    to_ring_ = false;
  }
}

void Writing::on_bell(Lock& lock) {
  if (waits_for_room_ != nullptr) {
    waits_.wake(*waits_for_room_);
  } else if (roles_.writer == Writer::kLoop) {
    roles_.writer = Writer::kNone;
    write_without_waiting(lock);
  }
}

// --- Writing ---

void Writing::on_writable(Lock& lock) {
  if (roles_.writer == Writer::kLoop) {
    roles_.writer = Writer::kNone;
    write_without_waiting(lock);
  }
}

// Writes what is queued as long as the operating system takes it, and nobody waits to do it.
// REQUIRES: nobody has the writing.
void Writing::write_without_waiting(Lock& lock) {
  roles_.writer = Writer::kCaller;
  while (!outbox_.empty() && waiting_sender() == nullptr && (write_batch(lock) || !link_.may_sleep_writing())) {
  }
  release(lock);
}

// One system call; true if it took something. The calling thread has the writing.
bool Writing::write_batch(Lock& lock) {
  if (failed_) {
    fail();
    return false;
  }
  std::array<iovec, kMostParts> parts;
  std::size_t gathered = 0;
  if (deflating_ == nullptr) {
    gathered = outbox_.gather(parts);
  } else if (deflating_->prepare(outbox_)) {
    return write_unit(lock);
  } else {
    gathered = outbox_.gather(parts, deflating_->cut());
    deflating_->on_gathered(outbox_);
  }
  if (gathered == 0) {
    return false;
  }
  later_ = 0;
  lock.unlock();
  const ssize_t count = link_.write(std::span(parts).first(gathered));
  lock.lock();
  if (count <= 0) {
    if (count < 0) {
      fail();
    }
    return false;
  }
  for (const auto& done : outbox_.written(static_cast<std::size_t>(count))) {
    on_done(*done);
  }
  return true;
}

// The same for a part of a unit.
bool Writing::write_unit(Lock& lock) {
  later_ = 0;
  lock.unlock();
  const ssize_t count = deflating_->write(link_, trace_);
  lock.lock();
  if (count <= 0) {
    if (count < 0) {
      fail();
    }
    return false;
  }
  for (const auto& done : deflating_->written(outbox_)) {
    on_done(*done);
  }
  return true;
}

// A message is written, or never will be: its sender is told.
void Writing::on_done(const Outgoing& message) {
  replies_ -= message.reply ? 1 : 0;
  if (message.sender != nullptr) {
    message.sender->wake();
  } else if (waits_.has_greenlets()) {
    waits_.touch(&message);
  }
}

// A thread that waits until its message is written; null if there is none.
const loop::Waiter* Writing::waiting_sender() const {
  const auto found = std::find_if(sending_.begin(), sending_.end(),
                                  [](const Outgoing* message) { return message->sender != nullptr; });
  return found != sending_.end() ? (*found)->sender : nullptr;
}

// Passes the writing to a thread that waits for its message to be written, else to the loop.
void Writing::release(Lock& lock) {
  static_cast<void>(lock);
  roles_.writer = Writer::kNone;
  if (!outbox_.empty()) {
    if (const loop::Waiter* sender = waiting_sender()) {
      sender->wake();
    } else {
      roles_.writer = Writer::kLoop;
      if (link_.writes_ring()) {
        if (!link_.may_sleep_writing()) {  // No bell is rung for room that is there already.
          roles_.call_after(std::chrono::milliseconds(0), [this](Lock& own) { on_bell(own); });
        } else if (roles_.reader == Reader::kNone) {  // The bell is for whoever reads, so somebody has to.
          reading_.arm();
        }
      }
    }
  }
  switch_if_idle();
  roles_.update_interest();
}

// --- The end ---

// What could not be written never will be. That the other side is gone the reader finds out, after it has read what had
// still arrived.
void Writing::fail() {
  failed_ = true;
  if (deflating_) {
    deflating_->drop();
  }
  for (const auto& dropped : outbox_.clear()) {
    on_done(*dropped);
  }
}

void Writing::end(Lock& lock) {
  static_cast<void>(lock);
  failed_ = true;
  if (waits_for_room_ != nullptr) {
    waits_.wake(*waits_for_room_);
  } else if (roles_.writer == Writer::kNone || roles_.loop_waits_for_bell()) {
    fail();
  }
}

}  // namespace execnet::core
