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

// A socket that has a port of the loopback device before it connects. As long as it has it nobody else can connect from
// there, so whoever accepts a connection from that address knows whose it is.
class LoopbackSocket {
 public:
  // On 127.0.0.1, or on ::1 where there is no such address. Throws std::system_error.
  LoopbackSocket();

  [[nodiscard]] const Address& address() const { return address_; }

  // Like the other connect(), to that port of the same host. Once: the socket is the caller's then.
  base::Fd connect(int port, const base::Wait& wait, std::string_view advice);

 private:
  Address address_;
  base::Fd socket_;
};

}  // namespace execnet::transport
