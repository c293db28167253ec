// Addresses of sockets as specifications write them, and connections to them. Any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "base/wait.hpp"

namespace execnet::transport {

struct Address {
  std::string host;
  int port = 0;
};

// "host:port", "127.0.0.1:8888", "[::1]:8888". Throws SpecError, which says what is wrong.
Address parse_address(std::string_view text);

// "host:port", with brackets where the host has colons.
std::string to_string(const Address& address);

// A TCP connection without Nagle's delay for small messages. Throws HostNotFound, with the system's error
// and `advice`. The deadline includes the look-up of the name; see resolve.hpp.
base::Fd connect(const Address& address, const base::Wait& wait, std::string_view advice);

}  // namespace execnet::transport
