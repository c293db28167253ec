// Values as the payloads of a connection's frames: channels in them are the connection's.
// Any thread may call these; the connection's mutex must not be held where a connection is given.
#pragma once

#include <string_view>

#include <execnet/dump.hpp>
#include <execnet/value.hpp>

#include "base/buffer.hpp"
#include "connection/connection.hpp"

namespace execnet::core {

// Throws DumpError, also for a channel of another connection.
base::Buffer encode_value(const Value& value, Connection* connection = nullptr);
// Throws LoadError.
Value decode_value(std::string_view bytes, Connection* connection = nullptr, StringConfig strings = {});

}  // namespace execnet::core
