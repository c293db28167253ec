#include "transport/resolve.hpp"

#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <memory>
#include <span>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "base/fd.hpp"
#include "base/syscall.hpp"
#include "process/spawn.hpp"

namespace execnet::transport {
namespace {

constexpr std::size_t kMostSaid = std::size_t{64} * 1024;
constexpr std::chrono::seconds kKilledWithin{1};
constexpr int kNotFound = 2;  // getent's exit status

// Does not outlive this.
class Killed {
 public:
  explicit Killed(std::shared_ptr<process::Process> process) : process_(std::move(process)) {}
  ~Killed() {
    if (!process_->poll()) {
      process_->kill_tree();
      process_->wait({.deadline = base::Clock::now() + kKilledWithin});
    }
  }
  Killed(const Killed&) = delete;
  Killed& operator=(const Killed&) = delete;

 private:
  const std::shared_ptr<process::Process> process_;
};

[[noreturn]] void fail(const std::string& why) { throw std::runtime_error(why); }

void wait_readable(int fd, const base::Wait& wait) {
  pollfd ready{fd, POLLIN, 0};
  if (!base::poll_until(std::span(&ready, 1), wait)) {
    fail("the name was not looked up in time");
  }
}

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

// What getaddrinfo says, as numbers; `error` is set instead if it fails.
std::vector<std::string> look_up_here(const std::string& host, int flags, int& error) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* list = nullptr;
  error = ::getaddrinfo(host.c_str(), nullptr, &hints, &list);
  std::vector<std::string> addresses;
  if (error == 0) {
    const AddressList owned(list, &::freeaddrinfo);
    for (const addrinfo* one = list; one != nullptr; one = one->ai_next) {
      std::array<char, NI_MAXHOST> text{};
      if (::getnameinfo(one->ai_addr, one->ai_addrlen, text.data(), text.size(), nullptr, 0, NI_NUMERICHOST) == 0) {
        addresses.emplace_back(text.data());
      }
    }
  }
  return addresses;
}

// "127.0.0.1       STREAM localhost" and more of other socket types.
std::vector<std::string> addresses_in(const std::string& said) {
  std::vector<std::string> addresses;
  std::stringstream lines(said);
  for (std::string line; std::getline(lines, line);) {
    std::stringstream words(line);
    std::string address, type;
    words >> address >> type;
    if (type == "STREAM") {
      addresses.push_back(address);
    }
  }
  return addresses;
}

std::vector<std::string> ask_getent(const std::string& host, const base::Wait& wait) {
  auto [in, out] = base::make_pipe();
  const base::Fd null(base::check("open", [] { return ::open("/dev/null", O_RDWR | O_CLOEXEC); }, "/dev/null"));
  const auto process =
      process::spawn({.argv = {"getent", "ahosts", "--", host},
                      .set_env = {},
                      .fds = {{null.get(), STDIN_FILENO}, {out.get(), STDOUT_FILENO}, {null.get(), STDERR_FILENO}}});
  const Killed killed(process);
  out.reset();
  std::string said;
  std::array<char, 4096> chunk;
  for (ssize_t count = 1; count > 0 && said.size() < kMostSaid;) {
    wait_readable(in.get(), wait);
    count = base::check("read", [&, fd = in.get()] { return ::read(fd, chunk.data(), chunk.size()); }, "getent");
    said.append(chunk.data(), static_cast<std::size_t>(count));
  }
  wait_readable(process->end_fd(), wait);
  const auto status = process->poll();
  auto addresses = addresses_in(said);
  if (addresses.empty()) {
    fail(status && status->code != 0 && status->code != kNotFound ? "getent: " + status->describe()
                                                                  : ::gai_strerror(EAI_NONAME));
  }
  return addresses;
}

}  // namespace

std::vector<std::string> resolve(const std::string& host, const base::Wait& wait) {
  int error = 0;
  auto addresses = look_up_here(host, AI_NUMERICHOST, error);
  if (error == 0) {
    return addresses;
  }
  try {
    return ask_getent(host, wait);
  } catch (const process::ExecError&) {
    addresses = look_up_here(host, 0, error);
  }
  if (error != 0) {
    fail(error == EAI_SYSTEM ? std::generic_category().message(errno) : ::gai_strerror(error));
  }
  return addresses;
}

}  // namespace execnet::transport
