// System calls that retry EINTR and, when they fail, throw an error that names the call.
#pragma once

#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/fd.hpp"

namespace execnet::base {

// Throws std::system_error for `error` with the text "<call>(<arguments>): <what the system says>" and, where a limit
// was reached, which one to raise.
[[noreturn]] void throw_system_error(int error, std::string_view call, std::string_view arguments = {});

// Runs `call` until it is not interrupted; throws std::system_error if it returns a negative value.
//   auto size = check("fstat", [&] { return ::fstat(fd, &info); });
template <typename Call>
auto check(std::string_view name, Call&& call, std::string_view arguments = {}) {
  auto result = call();
  while (result < 0 && errno == EINTR) {
    result = call();
  }
  if (result < 0) {
    throw_system_error(errno, name, arguments);
  }
  return result;
}

// A connected pair of close-on-exec unix stream sockets.
std::pair<Fd, Fd> socket_pair();

// A close-on-exec pipe: {read end, write end}.
std::pair<Fd, Fd> make_pipe();

}  // namespace execnet::base
