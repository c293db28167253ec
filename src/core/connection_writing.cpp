// The part of Connection that writes. See connection.hpp.
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <execnet/error.hpp>
#include <utility>

#include "base/syscall.hpp"
#include "core/connection.hpp"

namespace execnet::core {
namespace {

constexpr std::size_t kMostParts = 64;
constexpr const char* kLate = "the other side did not take the message in time";

}  // namespace

void Connection::send(Lock& lock, wire::FrameType type, std::uint32_t channel, base::Buffer payload,
                      const base::Wait& wait) {
  if (gone_ || writing_failed_) {
    throw_gone(lock, wait);
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
    : connection_(connection), lock_(lock), waiter_(loop::Waiter::of_this_thread()), message_(std::move(message)) {}

Connection::Writing::~Writing() {
  if (!lock_.owns_lock()) {
    lock_.lock();
  }
  take_back();
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
  if (connection_.writer_ == Writer::kNone) {
    connection_.write_without_waiting(lock_);
  }
  return true;
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
    }
  }
  update_interest(lock);
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
  const std::uint32_t write = writer_ == Writer::kLoop ? loop::kWrite : 0;
  if ((read | write) != interest_) {
    interest_ = read | write;
    loop_->set_interest(watch_, interest_);
  }
}

}  // namespace execnet::core
