#include "transport/address.hpp"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <charconv>
#include <execnet/error.hpp>
#include <memory>
#include <span>
#include <stdexcept>
#include <system_error>
#include <utility>
#include <vector>

#include "base/syscall.hpp"
#include "transport/resolve.hpp"

namespace execnet::transport {
namespace {

constexpr int kHighestPort = 65535;

[[noreturn]] void refuse(const std::string& what, std::string_view text) {
  throw SpecError(what + " in socket=" + std::string(text));
}

int parse_port(std::string_view port, std::string_view text) {
  int number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc() || end != port.data() + port.size() || number < 1 || number > kHighestPort) {
    refuse("no port number from 1 to 65535", text);
  }
  return number;
}

using Name = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

// Of a host that is given as a number. Null if it is none.
Name name_of(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* name = nullptr;
  const bool found = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &name) == 0;
  return {found ? name : nullptr, &::freeaddrinfo};
}

// Non-blocking. Empty if it fails, with errno.
base::Fd make_socket(const addrinfo& name) {
  return base::Fd(::socket(name.ai_family, name.ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, name.ai_protocol));
}

// Connects a non-blocking socket. Returns 0 or the error.
int connect_one(const base::Fd& socket, const addrinfo& name, const base::Wait& wait) {
  if (::connect(socket.get(), name.ai_addr, name.ai_addrlen) == 0) {
    return 0;
  }
  if (errno != EINPROGRESS) {
    return errno;
  }
  pollfd ready{socket.get(), POLLOUT, 0};
  if (!base::poll_until(std::span(&ready, 1), wait)) {
    return ETIMEDOUT;
  }
  int error = 0;
  socklen_t size = sizeof error;
  base::check("getsockopt", [&] { return ::getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &size); });
  return error;
}

// What a connected socket is handed out as: blocking, and without Nagle's delay.
base::Fd ready_for_use(base::Fd socket) {
  const int on = 1;
  base::check("setsockopt", [&] { return ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); });
  base::check("fcntl", [&] { return ::fcntl(socket.get(), F_SETFL, 0); });
  return socket;
}

[[noreturn]] void fail_to_connect(const Address& address, const std::string& why, std::string_view advice) {
  throw HostNotFound("cannot connect to " + to_string(address) + ": " + why + "; " + std::string(advice));
}

std::string text_of(int error) { return std::generic_category().message(error); }

// Binds a socket to a port that is free. Returns 0 or the error.
int bind_one(const base::Fd& socket, const addrinfo& name, int* port) {
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  auto* const address = reinterpret_cast<sockaddr*>(&bound);
  if (::bind(socket.get(), name.ai_addr, name.ai_addrlen) != 0 || ::getsockname(socket.get(), address, &size) != 0) {
    return errno;
  }
  *port = ntohs(bound.ss_family == AF_INET ? reinterpret_cast<sockaddr_in*>(address)->sin_port
                                           : reinterpret_cast<sockaddr_in6*>(address)->sin6_port);
  return 0;
}

}  // namespace

Address parse_address(std::string_view text) {
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || text.ends_with(']')) {
    refuse("no port", text);
  }
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find_first_of("[]:") != std::string_view::npos) {
    refuse("an IPv6 address without its brackets", text);
  }
  if (host.empty()) {
    refuse("no host", text);
  }
  return {std::string(host), parse_port(text.substr(colon + 1), text)};
}

std::string to_string(const Address& address) {
  const bool colons = address.host.find(':') != std::string::npos;
  return (colons ? '[' + address.host + ']' : address.host) + ':' + std::to_string(address.port);
}

base::Fd connect(const Address& address, const base::Wait& wait, std::string_view advice) {
  const std::vector<std::string> numbers = [&] {
    try {
      return resolve(address.host, wait);
    } catch (const std::runtime_error& error) {
      fail_to_connect(address, error.what(), advice);
    }
  }();
  int error = 0;
  for (const std::string& number : numbers) {
    const Name name = name_of(number, address.port);
    if (name == nullptr) {
      error = EADDRNOTAVAIL;
      continue;
    }
    base::Fd socket = make_socket(*name);
    error = socket ? connect_one(socket, *name, wait) : errno;
    if (error == 0) {
      return ready_for_use(std::move(socket));
    }
  }
  fail_to_connect(address, text_of(error), advice);
}

LoopbackSocket::LoopbackSocket() {
  int error = 0;
  for (const char* host : {"127.0.0.1", "::1"}) {
    const Name name = name_of(host, 0);
    if (name == nullptr) {
      error = EADDRNOTAVAIL;
      continue;
    }
    address_.host = host;
    socket_ = make_socket(*name);
    error = socket_ ? bind_one(socket_, *name, &address_.port) : errno;
    if (error == 0) {
      return;
    }
  }
  base::throw_system_error(error, "bind", "127.0.0.1 or ::1");
}

base::Fd LoopbackSocket::connect(int port, const base::Wait& wait, std::string_view advice) {
  const Address there{address_.host, port};
  const Name name = name_of(there.host, port);
  const int error = name == nullptr ? EADDRNOTAVAIL : connect_one(socket_, *name, wait);
  if (error != 0) {
    fail_to_connect(there, text_of(error), advice);
  }
  return ready_for_use(std::move(socket_));
}

}  // namespace execnet::transport
