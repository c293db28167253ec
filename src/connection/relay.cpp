#include "connection/relay.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <utility>

#include "connection/value_message.hpp"
#include "wire/opcode.hpp"

namespace execnet::core {
namespace {

constexpr std::size_t kPiece = std::size_t{64} << 10;
// So many pieces in a row; then others have their turn on the loop.
constexpr int kPiecesAtOnce = 8;
constexpr std::size_t kAcknowledgeAfter = Relay::kWindow / 4;

// An item of bytes consists of its opcode, four bytes of length, the bytes, and STOP.
constexpr std::size_t kBefore = 5;
constexpr std::size_t kAfter = 1;

base::Buffer item_of(std::string_view bytes) {
  base::Buffer item;
  char* at = item.extend(kBefore + bytes.size() + kAfter);
  *at++ = static_cast<char>(wire::Op::kBytes);
  for (int shift = 24; shift >= 0; shift -= 8) {
    *at++ = static_cast<char>(bytes.size() >> shift);
  }
  at = std::copy(bytes.begin(), bytes.end(), at);
  *at = static_cast<char>(wire::Op::kStop);
  return item;
}

// Whether the item is bytes. They are all of it except kBefore and kAfter.
bool is_bytes(std::string_view item) {
  const auto starts_with = [&](wire::Op op) { return item[0] == static_cast<char>(op); };
  if (item.size() < kBefore + kAfter || (!starts_with(wire::Op::kBytes) && !starts_with(wire::Op::kPy2String))) {
    return false;
  }
  std::size_t size = 0;
  for (std::size_t i = 1; i < kBefore; ++i) {
    size = size << 8 | static_cast<unsigned char>(item[i]);
  }
  return size == item.size() - kBefore - kAfter && item.back() == static_cast<char>(wire::Op::kStop);
}

}  // namespace

Relay::Relay(std::shared_ptr<Connection> connection, std::shared_ptr<ChannelState> channel,
             std::weak_ptr<RelayOwner> owner)
    : connection_(std::move(connection)), channel_(std::move(channel)), owner_(std::move(owner)) {}

Relay::~Relay() { connection_->loop()->unwatch(watch_); }

void Relay::take_channel(Connection::Lock& lock) {
  channel_->relay = weak_from_this();
  channel_->flow.set_ours(kUnbounded);  // a relay has its own window: the stream must not wait for anything else
  channel_->referenced = true;          // no handle will be made for it
  if (channel_->no_more_items) {        // the gateway is gone
    on_end(lock);
  }
}

void Relay::take_stream(Connection::Lock& lock, base::Fd stream) {
  stream_ = std::move(stream);
  scratch_.resize(kPiece);
  watch_ = connection_->loop()->watch(stream_.get(), 0, [weak = weak_from_this()](std::uint32_t ready) {
    if (const auto self = weak.lock()) {
      self->on_ready(ready);
    }
  });
  write_stream(lock);
}

void Relay::shut_down(Connection::Lock& lock) {
  static_cast<void>(lock);
  if (stream_) {
    ::shutdown(stream_.get(), SHUT_RDWR);
  }
}

bool Relay::has_spoken(const Connection::Lock& lock) const {
  static_cast<void>(lock);
  return spoken_;
}

bool Relay::stream_ended(const Connection::Lock& lock) const {
  static_cast<void>(lock);
  return read_ended_;
}

bool Relay::channel_ended(const Connection::Lock& lock) const {
  static_cast<void>(lock);
  return channel_ended_;
}

bool Relay::flushed(const Connection::Lock& lock) const {
  static_cast<void>(lock);
  return channel_ended_ && write_ended_;
}

std::string Relay::error(const Connection::Lock& lock) const {
  static_cast<void>(lock);
  return channel_->errors.empty() ? "" : channel_->errors.front();
}

// --- Channel to stream ---

void Relay::on_item(Connection::Lock& lock, base::Buffer payload) {
  if (!is_bytes(payload.view())) {
    const auto count = decode_value(payload.view()).as<std::int64_t>();
    if (count < 0 || static_cast<std::uint64_t>(count) > on_the_way_) {
      throw wire::ProtocolError("more bytes acknowledged than were sent on channel " + std::to_string(channel_->id));
    }
    on_the_way_ -= static_cast<std::size_t>(count);
    update_interest(lock);
    return;
  }
  const std::size_t size = payload.size() - kBefore - kAfter;
  if (size > kWindow - std::min(pending_bytes_ + consumed_, kWindow)) {
    throw wire::ProtocolError("more bytes than the window allows on channel " + std::to_string(channel_->id));
  }
  if (write_ended_ || size == 0) {
    return;  // nobody reads them at the other end any more
  }
  pending_bytes_ += size;
  pending_.push_back(std::move(payload));
  write_stream(lock);
}

void Relay::on_end(Connection::Lock& lock) {
  channel_ended_ = true;
  tell_owner(lock);
  write_stream(lock);
}

void Relay::write_stream(Connection::Lock& lock) {
  while (stream_ && !write_ended_ && !pending_.empty()) {
    const base::Buffer& item = pending_.front();
    const std::size_t left = item.size() - kBefore - kAfter - offset_;
    const ssize_t count = ::send(stream_.get(), item.data() + kBefore + offset_, left, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0 && errno == EAGAIN) {
      break;
    }
    if (count < 0) {
      end_writing(lock);
      break;
    }
    const auto written = static_cast<std::size_t>(count);
    pending_bytes_ -= written;
    offset_ += written;
    if (written == left) {
      pending_.pop_front();
      offset_ = 0;
    }
    acknowledge(lock, written);
  }
  if (channel_ended_ && (pending_.empty() || !stream_)) {
    end_writing(lock);
  }
  update_interest(lock);
}

// Bytes that were not written yet are dropped.
void Relay::end_writing(Connection::Lock& lock) {
  if (!std::exchange(write_ended_, true)) {
    pending_.clear();
    pending_bytes_ = offset_ = 0;
    if (channel_ended_) {
      shut_down(lock);
      tell_owner(lock);
    }
  }
}

void Relay::acknowledge(Connection::Lock& lock, std::size_t count) {
  consumed_ += count;
  if (consumed_ >= kAcknowledgeAfter && !channel_->closed) {
    const auto consumed = static_cast<std::int64_t>(std::exchange(consumed_, 0));
    connection_->post(lock, wire::FrameType::kData, channel_->id, encode_value(Value(consumed)));
  }
}

// --- Stream to channel ---

void Relay::on_ready(std::uint32_t ready) {
  auto lock = connection_->lock();
  try {
    if ((ready & loop::kWrite) != 0) {
      write_stream(lock);
    }
    if ((ready & loop::kRead) != 0) {
      read_stream(lock);
    }
  } catch (const std::exception&) {  // no memory: some bytes are lost, so the stream ends
    shut_down(lock);
    read_ended_ = true;
    end_writing(lock);
    tell_owner(lock);
  }
  update_interest(lock);
}

void Relay::read_stream(Connection::Lock& lock) {
  for (int piece = 0; piece < kPiecesAtOnce && !read_ended_ && (channel_ended_ || on_the_way_ < kWindow); ++piece) {
    const std::size_t room = channel_ended_ ? scratch_.size() : std::min(scratch_.size(), kWindow - on_the_way_);
    const ssize_t count = ::recv(stream_.get(), scratch_.data(), room, MSG_DONTWAIT);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) {
      return;
    }
    if (count <= 0) {
      read_ended_ = true;
      tell_owner(lock);
      return;
    }
    if (!channel_ended_) {
      const auto size = static_cast<std::size_t>(count);
      on_the_way_ += size;
      connection_->post(lock, wire::FrameType::kData, channel_->id, item_of({scratch_.data(), size}));
    }
    if (!std::exchange(spoken_, true)) {
      tell_owner(lock);
    }
  }
}

void Relay::update_interest(Connection::Lock& lock) {
  static_cast<void>(lock);
  const bool read = !read_ended_ && (channel_ended_ || on_the_way_ < kWindow);
  const bool write = !write_ended_ && !pending_.empty();
  connection_->loop()->set_interest(watch_, (read ? loop::kRead : 0) | (write ? loop::kWrite : 0));
}

void Relay::tell_owner(Connection::Lock& lock) {
  if (const auto owner = owner_.lock()) {
    owner->on_relay_change(lock);
  }
}

}  // namespace execnet::core
