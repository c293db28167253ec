// A channel as a standard stream of text: items at one end are characters at the other.
// The far end may use `channel.makefile()`, or send and receive strings itself.
//
// A stream has a handle to its channel and does not close it. One thread uses a stream at a time.
#pragma once

#include <cstdint>
#include <execnet/channel.hpp>
#include <execnet/export.hpp>
#include <istream>
#include <memory>
#include <ostream>

namespace execnet {

// Text is sent when the stream is flushed, when a few kilobytes have been written, and when the stream is
// destroyed, each time as one string.
//   ChannelWriter out(channel);
//   out << "the answer is " << 42 << std::endl;
// As kBytes each is a bytes item, of whatever encoding was written: for channel.makefile("r", encoding="latin-1").
// When sending fails, the stream is bad; with out.exceptions(std::ios::badbit) the error is thrown.
class EXECNET_EXPORT ChannelWriter : public std::ostream {
 public:
  enum class Items : std::uint8_t { kText, kBytes };
  explicit ChannelWriter(Channel channel, Items items = Items::kText);
  ~ChannelWriter() override;

 private:
  std::unique_ptr<std::streambuf> buffer_;
};

// The items of a channel, strings or bytes, one after the other. The stream ends with the channel.
//   for (std::string line; std::getline(in, line);) ...
// When the other side raised, is gone, or sends something else, the stream is bad; with in.exceptions(std::ios::badbit)
// the RemoteError, GatewayGone or DataFormatError is thrown.
class EXECNET_EXPORT ChannelReader : public std::istream {
 public:
  explicit ChannelReader(Channel channel);
  ~ChannelReader() override;

 private:
  std::unique_ptr<std::streambuf> buffer_;
};

}  // namespace execnet
