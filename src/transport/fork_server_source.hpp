// worker/fork_server.py as it is sent. The build generates the source file.
#pragma once

#include <string_view>

namespace execnet::transport {

// Any thread; lives for ever.
std::string_view fork_server_source();

}  // namespace execnet::transport
