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
  // The id by which the other side knows the channel. Throws DumpError for a channel of another connection.
  virtual std::uint32_t id_of(const ChannelRef& channel) = 0;
  // The channel of that id, made if there is none yet.
  virtual ChannelRef channel(std::uint32_t id) = 0;

 protected:
  ~ChannelTable() = default;  // not owned through this class
};

// Appends the value. When it throws DumpError, `out` is as before. Without a table, channels are refused.
void encode(const Value& value, base::Buffer& out, ChannelTable* channels);

// Appends a value that consists of these bytes. Many bytes are lent by their owner, not copied.
void encode_bytes(std::string_view bytes, std::shared_ptr<const void> owner, base::Rope& out);
// If `encoded` is a bytes value: its bytes, within `encoded`. None for any other value.
std::optional<std::string_view> bytes_in(std::string_view encoded);

// Decodes `bytes`. Nothing may follow the value. Throws LoadError.
Value decode(std::string_view bytes, ChannelTable* channels, StringConfig strings);

}  // namespace execnet::wire
