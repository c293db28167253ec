// worker/socket_listener.py as it is sent. The build generates the source file.
#pragma once

#include <string_view>

namespace execnet::core {

// Any thread; lives for ever.
std::string_view socket_listener_source();

}  // namespace execnet::core
