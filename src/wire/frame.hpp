// Frames: what travels between the two ends of a gateway. docs/wire_format.md describes them.
//
//   bytes -> FrameParser -> Frame -> MessageAssembler -> Message
//
// Both belong to the one reader of a connection and are used by one thread at a time. After a
// ProtocolError the connection is to be ended; neither may be used any more.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <execnet/error.hpp>

#include "base/buffer.hpp"

namespace execnet::wire {

inline constexpr std::size_t kHeaderSize = 16;
inline constexpr std::size_t kMaxFramePayload = std::size_t{1} << 20;  // a longer one is refused
inline constexpr std::size_t kChunk = std::size_t{256} << 10;          // a longer payload is sent in chunks
inline constexpr std::size_t kMaxInflated = std::size_t{1} << 20;      // what a DEFLATED frame may become
inline constexpr std::uint8_t kProtocolVersion = 1;
// What a worker sends first; the last byte is the protocol version.
inline constexpr std::string_view kMagic{"EXECNET\x01", 8};

// The other end violates the protocol. Nothing that it sends can be trusted any more.
class ProtocolError : public Error {
 public:
  using Error::Error;
};

enum class FrameType : std::uint8_t {
  kHello = 1,
  kExec = 2,
  kData = 3,
  kClose = 4,
  kCloseError = 5,
  kLast = 6,
  kTerminate = 7,
  kStatus = 8,
  kReconfigure = 9,
  kCredit = 10,
  kOpen = 11,
  kWindow = 12,
  kRings = 13,
  kDeflated = 14,
  kProbe = 15,
  kPassed = 16,
};

// "DATA"
std::string_view name(FrameType type);

inline constexpr std::uint8_t kMore = 1;   // the payload goes on in the next frame of this channel
inline constexpr std::uint8_t kAbort = 2;  // takes back the frames with kMore before it

struct FrameHeader {
  FrameType type = FrameType::kData;
  std::uint8_t flags = 0;
  std::uint32_t channel = 0;
  std::uint32_t length = 0;  // of the payload, in bytes
  // Of CREDIT: bytes of this channel's items that were taken since the last. Of DEFLATED: how many bytes it becomes. Of
  // PROBE and PASSED: a number.
  std::uint32_t credit = 0;
  friend bool operator==(const FrameHeader&, const FrameHeader&) = default;
};

std::array<char, kHeaderSize> pack(const FrameHeader& header);

// A received header, checked: a known type, no unknown flag or reserved bit, a length that the type
// may have, channel 0 exactly where it belongs. Throws a ProtocolError that says what was received.
FrameHeader unpack(std::span<const char, kHeaderSize> bytes);

struct Frame {
  FrameHeader header;
  base::Buffer payload;
  std::size_t earlier = 0;  // so many bytes of it are the chunks that came before, see FrameParser::next()
};

class MessageAssembler;

// Cuts a stream into frames. Small frames are read many at a time into a buffer of this object and
// copied out of it. Of a large frame only the part that came together with its header is copied.
//
//   const auto space = parser.space();
//   parser.received(read(fd, space.data(), space.size()));
//   while (auto frame = parser.next()) { ... }
class FrameParser {
 public:
  FrameParser() = default;

  // Where to read to; never empty. Valid until the next call of received() or next().
  [[nodiscard]] std::span<char> space();
  // `count` bytes were put at the start of space().
  void received(std::size_t count);
  // The next complete frame, if there is one. Throws ProtocolError. Call it until there is none
  // before you call space() again. With the assembler that the frames go to, a large chunk is read
  // directly behind the chunks before it.
  std::optional<Frame> next(MessageAssembler* assembler = nullptr);

  // Whether the stream is within a frame, so that its end now would be a truncation.
  [[nodiscard]] bool within_frame() const { return large_.has_value() || begin_ != end_; }

 private:
  static constexpr std::size_t kCapacity = std::size_t{64} << 10;
  // Up to here a frame that does not fit behind others is moved to the front of the buffer; a longer
  // one gets its own.
  static constexpr std::size_t kSmall = kCapacity / 4;

  void move_to_front();

  base::Buffer buffer_;    // kCapacity bytes once used
  std::size_t begin_ = 0;  // what was received and not yet taken: [begin_, end_) of buffer_
  std::size_t end_ = 0;
  std::optional<Frame> large_;  // read in place; then buffer_ is empty
  std::size_t large_filled_ = 0;
};

struct Message {
  FrameType type = FrameType::kData;
  std::uint32_t channel = 0;
  base::Buffer payload;
  std::uint32_t credit = 0;
};

// Joins the chunks of messages. A message of one frame is not copied.
class MessageAssembler {
 public:
  // The message that the frame completes, if it does. Throws ProtocolError for a frame of another
  // type between the chunks of a message.
  std::optional<Message> add(Frame frame);

  // The chunks so far of the message that such a frame goes on with. That frame is the next for its channel, and brings
  // them back.
  base::Buffer take_chunks(const FrameHeader& header);

  // The messages that are not complete yet, and their bytes.
  [[nodiscard]] std::size_t count() const { return partial_.size(); }
  [[nodiscard]] std::size_t pending() const { return pending_; }

 private:
  std::map<std::uint32_t, Message> partial_;  // by channel
  std::size_t pending_ = 0;
};

}  // namespace execnet::wire
