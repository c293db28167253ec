#include "wire/frame.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

namespace execnet::wire {

namespace {

// Little-endian, least significant byte first.
void put_int4(char* at, std::uint32_t number) {
  for (int i = 0; i < 4; ++i) {
    at[i] = static_cast<char>(number >> (8 * i));
  }
}

std::uint32_t get_int4(const char* at) {
  std::uint32_t number = 0;
  for (int i = 3; i >= 0; --i) {
    number = (number << 8) | static_cast<unsigned char>(at[i]);
  }
  return number;
}

std::string describe(const FrameHeader& header) {
  return std::string(name(header.type)) + " frame of channel " + std::to_string(header.channel);
}

bool may_have_payload(FrameType type) {
  switch (type) {
    case FrameType::kHello:
    case FrameType::kExec:
    case FrameType::kData:
    case FrameType::kCloseError:
    case FrameType::kReconfigure:
    case FrameType::kOpen:
    case FrameType::kWindow:
    case FrameType::kDeflated: return true;
    case FrameType::kClose:
    case FrameType::kLast:
    case FrameType::kTerminate:
    case FrameType::kStatus:
    case FrameType::kCredit:
    case FrameType::kRings:
    case FrameType::kProbe:
    case FrameType::kPassed: break;
  }
  return false;
}

bool is_channel_allowed(FrameType type, std::uint32_t channel) {
  switch (type) {
    case FrameType::kHello:
    case FrameType::kTerminate:
    case FrameType::kRings:
    case FrameType::kDeflated:
    case FrameType::kProbe:
    case FrameType::kPassed: return channel == 0;
    case FrameType::kReconfigure: return true;
    default: return channel != 0;
  }
}

}  // namespace

std::string_view name(FrameType type) {
  switch (type) {
    case FrameType::kHello: return "HELLO";
    case FrameType::kExec: return "EXEC";
    case FrameType::kData: return "DATA";
    case FrameType::kClose: return "CLOSE";
    case FrameType::kCloseError: return "CLOSE_ERROR";
    case FrameType::kLast: return "LAST";
    case FrameType::kTerminate: return "TERMINATE";
    case FrameType::kStatus: return "STATUS";
    case FrameType::kReconfigure: return "RECONFIGURE";
    case FrameType::kCredit: return "CREDIT";
    case FrameType::kOpen: return "OPEN";
    case FrameType::kWindow: return "WINDOW";
    case FrameType::kRings: return "RINGS";
    case FrameType::kDeflated: return "DEFLATED";
    case FrameType::kProbe: return "PROBE";
    case FrameType::kPassed: return "PASSED";
  }
  return "unknown";
}

std::array<char, kHeaderSize> pack(const FrameHeader& header) {
  std::array<char, kHeaderSize> bytes{static_cast<char>(header.type), static_cast<char>(header.flags)};
  put_int4(&bytes[4], header.channel);
  put_int4(&bytes[8], header.length);
  put_int4(&bytes[12], header.credit);
  return bytes;
}

FrameHeader unpack(std::span<const char, kHeaderSize> bytes) {
  const FrameHeader header{
      .type = static_cast<FrameType>(bytes[0]),
      .flags = static_cast<std::uint8_t>(bytes[1]),
      .channel = get_int4(&bytes[4]),
      .length = get_int4(&bytes[8]),
      .credit = get_int4(&bytes[12]),
  };
  if (header.type < FrameType::kHello || header.type > FrameType::kPassed) {
    throw ProtocolError("unknown frame type " + std::to_string(static_cast<unsigned>(header.type)));
  }
  if ((header.flags & ~(kMore | kAbort)) != 0 || header.flags == (kMore | kAbort)) {
    throw ProtocolError("flags " + std::to_string(header.flags) + " in a " + describe(header));
  }
  if (bytes[2] != 0 || bytes[3] != 0) {
    throw ProtocolError("reserved bits set in a " + describe(header));
  }
  if (header.length > kMaxFramePayload) {
    throw ProtocolError("length " + std::to_string(header.length) + " in a " + describe(header) + "; at most " +
                        std::to_string(kMaxFramePayload) + " is allowed");
  }
  const bool payload_allowed = may_have_payload(header.type) && header.flags != kAbort;
  if (header.length != 0 && !payload_allowed) {
    throw ProtocolError("length " + std::to_string(header.length) + " in a " + describe(header) +
                        (header.flags == kAbort ? " that aborts" : "") + "; it has no payload");
  }
  if (header.flags != 0 && !may_have_payload(header.type)) {
    throw ProtocolError("flags " + std::to_string(header.flags) + " in a " + describe(header) +
                        "; it has no payload to go on");
  }
  if (!is_channel_allowed(header.type, header.channel)) {
    throw ProtocolError("unexpected " + describe(header));
  }
  if (header.type == FrameType::kDeflated) {
    if (header.flags != 0 || header.length == 0) {
      throw ProtocolError("flags " + std::to_string(header.flags) + " and length " + std::to_string(header.length) +
                          " in a " + describe(header));
    }
    if (header.credit == 0 || header.credit > kMaxInflated) {
      throw ProtocolError("a " + describe(header) + " that becomes " + std::to_string(header.credit) + " bytes; 1 to " +
                          std::to_string(kMaxInflated) + " are allowed");
    }
  }
  return header;
}

void FrameParser::move_to_front() {
  std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
  end_ -= begin_;
  begin_ = 0;
}

std::span<char> FrameParser::space() {
  if (large_) {
    return {large_->payload.data() + large_filled_, large_->payload.size() - large_filled_};
  }
  if (buffer_.empty()) {
    buffer_.extend(kCapacity);
  }
  if (begin_ == end_) {
    begin_ = end_ = 0;
  } else if (kCapacity - end_ < kSmall && begin_ > 0) {
    move_to_front();
  }
  return {buffer_.data() + end_, kCapacity - end_};
}

void FrameParser::received(std::size_t count) { (large_ ? large_filled_ : end_) += count; }

std::optional<Frame> FrameParser::next(MessageAssembler* assembler) {
  if (large_) {
    if (large_filled_ < large_->payload.size()) {
      return std::nullopt;
    }
    return std::exchange(large_, std::nullopt);
  }
  const std::size_t there = end_ - begin_;
  if (there < kHeaderSize) {
    return std::nullopt;
  }
  const char* start = buffer_.data() + begin_;
  const FrameHeader header = unpack(std::span<const char, kHeaderSize>(start, kHeaderSize));
  const std::size_t size = kHeaderSize + header.length;
  if (size <= there) {
    begin_ += size;
    return Frame{.header = header, .payload = base::Buffer({start + kHeaderSize, header.length})};
  }
  if (begin_ + size <= kCapacity || size <= kSmall) {
    return std::nullopt;  // the rest will be read into the same buffer, with the frames after it
  }
  const std::size_t payload_there = there - kHeaderSize;
  large_.emplace(Frame{.header = header, .payload = {}});
  if (assembler != nullptr) {
    large_->payload = assembler->take_chunks(header);
    large_->earlier = large_->payload.size();
  }
  std::memcpy(large_->payload.extend(header.length), start + kHeaderSize, payload_there);
  large_filled_ = large_->earlier + payload_there;
  begin_ = end_ = 0;
  return std::nullopt;
}

base::Buffer MessageAssembler::take_chunks(const FrameHeader& header) {
  const auto found = partial_.find(header.channel);
  return found != partial_.end() && found->second.type == header.type ? std::move(found->second.payload)
                                                                      : base::Buffer();
}

std::optional<Message> MessageAssembler::add(Frame frame) {
  const FrameHeader& header = frame.header;
  const auto found = partial_.find(header.channel);
  if (found == partial_.end()) {
    if (header.flags == kAbort) {
      return std::nullopt;  // its sender was interrupted before the first chunk was out
    }
    Message message{header.type, header.channel, std::move(frame.payload), header.credit};
    if (header.flags != kMore) {
      return message;
    }
    pending_ += message.payload.size();
    partial_.emplace(header.channel, std::move(message));
    return std::nullopt;
  }
  Message& message = found->second;
  if (message.type != header.type) {
    throw ProtocolError("a " + describe(header) + " within a " + std::string(name(message.type)) + " message");
  }
  const std::size_t added = frame.payload.size() - frame.earlier;
  if (frame.earlier != 0) {
    message.payload = std::move(frame.payload);
  } else {
    message.payload.append(frame.payload.view());
  }
  if (header.flags == kMore) {
    pending_ += added;
    return std::nullopt;
  }
  pending_ -= message.payload.size() - added;
  Message complete = std::move(message);
  complete.payload.trim();  // it may wait for long to be received
  partial_.erase(found);
  if (header.flags == kAbort) {
    return std::nullopt;
  }
  return complete;
}

}  // namespace execnet::wire
