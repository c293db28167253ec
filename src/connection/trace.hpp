// What goes over a connection and how it ends, in lines: what EXECNET_DEBUG asks for. docs/debugging.md has their form.
//
//   1764533404.123456 4711 gw0 -> DATA 1 94
//
// A line is written where its frame is, so also with the connection's mutex held: a program whose stderr nobody reads
// stands still then. Without a trace a connection tests one pointer for each frame.
//
// Owner: a TraceOutput is shared by the traces of a group, or has that of a worker; a Trace belongs to its connection.
// Any thread may call any method. No method of a Trace throws or changes what happens to the frame.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/fd.hpp"
#include "wire/frame.hpp"

namespace execnet::core {

// As HELLO says it.
enum class TraceTo : std::uint8_t { kNowhere = 0, kFile = 1, kStderr = 2 };

// What EXECNET_DEBUG says now.
TraceTo trace_wanted();

class TraceOutput {
 public:
  // A new file in the directory for temporary ones, or the stderr that this process has now. Null if it is to go
  // nowhere, or cannot: then stderr says so, since what is debugged is to run all the same.
  static std::shared_ptr<const TraceOutput> open(TraceTo to);

  TraceOutput(TraceTo to, base::Fd fd) : to_(to), fd_(std::move(fd)) {}

  [[nodiscard]] TraceTo to() const { return to_; }
  // In one system call, so that lines of several threads and processes do not mix.
  void write(std::string_view line) const;

 private:
  const TraceTo to_;
  const base::Fd fd_;
};

class Trace {
 public:
  Trace(std::shared_ptr<const TraceOutput> output, std::string_view gateway_id);

  // `payload` is that of the frame: of a message in several frames nothing is told but their sizes.
  void received(const wire::FrameHeader& header, std::string_view payload) const noexcept;
  void sends(const wire::FrameHeader& header, std::string_view payload) const noexcept;
  // Bytes that are a frame already, perhaps behind the magic ones, or that come before the first.
  void sends_raw(std::string_view bytes) const noexcept;
  // Whatever else happens. Only the first line of the text.
  void note(std::string_view text) const noexcept;

 private:
  void frame(const char* direction, const wire::FrameHeader& header, std::string_view payload) const;
  void write(std::string_view line) const;

  const std::shared_ptr<const TraceOutput> output_;
  const std::string who_;  // "4711 gw0"
};

}  // namespace execnet::core
