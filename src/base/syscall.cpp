#include "base/syscall.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <stdexcept>

namespace execnet::base {

namespace {

// What the user can do about it; empty if nothing in general.
std::string_view advice(int error, std::string_view call) {
  switch (error) {
    case EMFILE: return "raise the limit of open files (`ulimit -n`)";
    case ENFILE: return "the whole system is out of descriptors (fs.file-max)";
    case ENOMEM: return "there is not enough memory, or address space (`ulimit -v`)";
    case EAGAIN:
      return call == "pthread_create" || call.ends_with("fork")
                 ? "raise the limit of threads and processes (`ulimit -u`, or pids.max of the control group)"
                 : "";
    default: return "";
  }
}

// With the advice behind the system's own text.
class Advised final : public std::system_error {
 public:
  Advised(int error, const std::string& what, std::string_view advice)
      : std::system_error(error, std::generic_category(), what),
        text_(std::string(std::system_error::what()) + ": " + std::string(advice)) {}
  [[nodiscard]] const char* what() const noexcept override { return text_.what(); }

 private:
  std::runtime_error text_;  // a string that can be copied without a throw
};

}  // namespace

void throw_system_error(int error, std::string_view call, std::string_view arguments) {
  std::string what(call);
  what.append("(").append(arguments).append(")");
  if (const std::string_view hint = advice(error, call); !hint.empty()) {
    throw Advised(error, what, hint);
  }
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
