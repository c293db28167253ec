#include "base/syscall.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

namespace execnet::base {

void throw_system_error(int error, std::string_view call, std::string_view arguments) {
  std::string what(call);
  what.append("(").append(arguments).append(")");
  throw std::system_error(error, std::generic_category(), what);
}

std::pair<Fd, Fd> socket_pair() {
  int ends[2];
  check("socketpair", [&] { return ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends); });
  return {Fd(ends[0]), Fd(ends[1])};
}

std::pair<Fd, Fd> make_pipe() {
  int ends[2];
  check("pipe2", [&] { return ::pipe2(ends, O_CLOEXEC); });
  return {Fd(ends[0]), Fd(ends[1])};
}

}  // namespace execnet::base
