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

// Connects a non-blocking socket. Returns 0 or the error.
int connect_one(const base::Fd& socket, const addrinfo& address, const base::Wait& wait) {
  if (::connect(socket.get(), address.ai_addr, address.ai_addrlen) == 0) {
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
  const auto fail = [&](const std::string& why) {
    throw HostNotFound("cannot connect to " + to_string(address) + ": " + why + "; " + std::string(advice));
  };
  const std::vector<std::string> numbers = [&] {
    try {
      return resolve(address.host, wait);
    } catch (const std::runtime_error& error) {
      fail(error.what());
    }
    return std::vector<std::string>();
  }();
  int error = 0;
  for (const std::string& number : numbers) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
    addrinfo* one = nullptr;
    if (::getaddrinfo(number.c_str(), std::to_string(address.port).c_str(), &hints, &one) != 0) {
      error = EADDRNOTAVAIL;
      continue;
    }
    const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owned(one, &::freeaddrinfo);
    base::Fd socket(::socket(one->ai_family, one->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, one->ai_protocol));
    error = socket ? connect_one(socket, *one, wait) : errno;
    if (error == 0) {
      const int on = 1;
      base::check("setsockopt", [&] { return ::setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); });
      base::check("fcntl", [&] { return ::fcntl(socket.get(), F_SETFL, 0); });
      return socket;
    }
  }
  fail(std::generic_category().message(error));
  return {};
}

}  // namespace execnet::transport
