// Addresses of sockets as specifications write them. Values; any thread.
#pragma once

#include <string>
#include <string_view>

namespace execnet::transport {

struct Address {
  std::string host;
  int port = 0;
};

// "host:port", "127.0.0.1:8888", "[::1]:8888". Throws SpecError, which says what is wrong.
Address parse_address(std::string_view text);

}  // namespace execnet::transport
