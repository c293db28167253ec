#include "transport/address.hpp"

#include <charconv>
#include <execnet/error.hpp>

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

}  // namespace execnet::transport
