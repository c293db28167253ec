// Values as payloads of a connection's frames. Channels in them belong to the connection.
// Any thread may call these functions. If a connection is given, its mutex must not be held.
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
