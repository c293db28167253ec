// execnet::Value to and from the bytes that frames carry: no version byte, channels allowed.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include <execnet/dump.hpp>

#include "base/buffer.hpp"
#include "base/rope.hpp"

namespace execnet::wire {

// Who knows the channels of a connection. Called on the thread that encodes or decodes.
class ChannelTable {
 public:
  // The id under which the other side will know the channel; throws DumpError if it is none of this connection.
  virtual std::uint32_t id_of(const ChannelRef& channel) = 0;
  // The channel of that id, made if there is none yet.
  virtual ChannelRef channel(std::uint32_t id) = 0;

 protected:
  ~ChannelTable() = default;  // not owned through this class
};

// Appends the value; `out` is as before when it throws DumpError. Without a table channels are refused.
void encode(const Value& value, base::Buffer& out, ChannelTable* channels);

// Appends a value that is these bytes, lent by their owner if they are many.
void encode_bytes(std::string_view bytes, std::shared_ptr<const void> owner, base::Rope& out);
// The bytes, within `encoded`, that it is and nothing else; none if it is something else.
std::optional<std::string_view> bytes_in(std::string_view encoded);

// The value that `bytes` is; nothing may follow it. Throws LoadError.
Value decode(std::string_view bytes, ChannelTable* channels, StringConfig strings);

}  // namespace execnet::wire
