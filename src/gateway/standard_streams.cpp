#include "gateway/standard_streams.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "base/fd.hpp"
#include "base/syscall.hpp"
#include "wire/frame.hpp"

namespace execnet::core {
namespace {

constexpr std::array<std::pair<std::string_view, Standard>, 5> kNames{{{"inherit", Standard::kInherit},
                                                                       {"devnull", Standard::kDevnull},
                                                                       {"close", Standard::kClose},
                                                                       {"stderr", Standard::kStderr},
                                                                       {"callback", Standard::kCallback}}};

Standard named(const Dict& hello, const char* key) {
  const auto name = hello.at(key).as<std::string>();
  for (const auto& [known, standard] : kNames) {
    if (name == known && (standard <= Standard::kClose || key == std::string_view("stdout"))) {
      return standard;
    }
  }
  throw wire::ProtocolError("HELLO with " + std::string(key) + "=" + name);
}

void become(int fd, Standard standard) {
  if (standard == Standard::kStderr) {
    base::check("dup2", [&] { return ::dup2(STDERR_FILENO, fd); });
  } else if (standard == Standard::kDevnull || standard == Standard::kClose) {
    // One that is closed is the null device the wrong way round: calls fail as of a closed one, with EBADF, but the
    // number is not given to the next file that is opened, for stray output to go into.
    const bool for_reading = (fd == STDIN_FILENO) == (standard == Standard::kDevnull);
    const base::Fd null(base::check(
        "open", [&] { return ::open("/dev/null", (for_reading ? O_RDONLY : O_WRONLY) | O_CLOEXEC); }, "/dev/null"));
    base::check("dup2", [&] { return ::dup2(null.get(), fd); });
  }
}

}  // namespace

StandardStreams StandardStreams::from_hello(const Dict& hello) {
  return {named(hello, "stdin"), named(hello, "stdout"), named(hello, "stderr")};
}

void StandardStreams::apply() const {
  become(STDIN_FILENO, in);
  become(STDERR_FILENO, err);
  become(STDOUT_FILENO, out);  // after stderr, which it may follow
}

}  // namespace execnet::core
