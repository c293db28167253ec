// The messages in the bytes of a link: what the other side prints before its first bytes is skipped, the rest is cut
// into frames, and the frames are put together to messages.
//
// What comes compressed is inflated (wire/deflate.hpp), and is frames as all others. A few bytes can become many
// messages, so after about a megabyte a read is over, and there is more.
//
// Owner: Reading. The methods that read are called by whoever has the reading, without the connection's mutex.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "connection/link.hpp"
#include "connection/trace.hpp"
#include "wire/deflate.hpp"
#include "wire/frame.hpp"

namespace execnet::core {

// What one read of the stream gave.
struct Incoming {
  std::vector<wire::Message> messages;
  bool ended = false;
  bool bell = false;           // as Link::Got
  std::string error;           // why it has ended, if that was not in order
  std::size_t unfinished = 0;  // messages of which only a part has come, and the bytes of these parts
  std::size_t unfinished_bytes = 0;
};

class FrameReader {
 public:
  // `skips_noise`: a login shell may print things before the worker says its magic bytes.
  FrameReader(Link& link, bool skips_noise) : link_(link) {
    if (skips_noise) {
      noise_.emplace();
    }
  }

  // Tells it of the frames that come from now on. Any thread.
  void set_trace(const Trace* trace) { trace_ = trace; }

  // The other side may compress what it sends from now on. By whoever reads, or before that.
  void expect_deflated() { expects_deflated_ = true; }

  // Reads what is there: one system call at most, or none from a ring. Never waits, never throws.
  Incoming read();
  // Whether there is something that the next read() finds, though the link has nothing. Guarded by the connection's
  // mutex while nobody reads.
  [[nodiscard]] bool has_more() const { return more_; }
  // Whether the stream is within a frame: its end would be a truncation.
  [[nodiscard]] bool within_frame() const { return parser_.within_frame(); }

 private:
  std::size_t receive_into(std::span<char> space, Incoming& incoming);
  void look_for_magic(std::string_view bytes, Incoming& incoming);
  void parse(Incoming& incoming);
  void take(wire::Frame&& frame, Incoming& incoming);
  void inflate(wire::Frame&& unit, Incoming& incoming);

  // The units of the stream, once there was one.
  struct Units {
    wire::Inflater inflater;
    wire::FrameParser parser;
  };

  Link& link_;
  std::optional<std::string> noise_;  // what came before the worker's first bytes; none once they came
  wire::FrameParser parser_;
  wire::MessageAssembler assembler_;
  std::atomic<const Trace*> trace_{nullptr};
  bool expects_deflated_ = false;
  bool more_ = false;  // in parser_
  std::unique_ptr<Units> units_;
};

}  // namespace execnet::core
