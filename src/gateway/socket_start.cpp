#include "gateway/socket_start.hpp"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <execnet/error.hpp>
#include <filesystem>
#include <fstream>
#include <tuple>
#include <utility>

#include "base/printable.hpp"
#include "base/syscall.hpp"
#include "connection/value_message.hpp"
#include "gateway/gateway_end.hpp"
#include "gateway/socket_listener_source.hpp"
#include "process/descent.hpp"
#include "transport/address.hpp"
#include "transport/bootstrap.hpp"

namespace execnet::core {
namespace {

constexpr std::chrono::seconds kConnectsWithin{30};
constexpr std::chrono::seconds kListensFor{30};
constexpr std::size_t kTokenSize = 32;

base::Wait within(std::chrono::seconds most, const base::Wait& wait) {
  const auto limit = base::Clock::now() + most;
  return wait.until(wait.deadline ? std::min(*wait.deadline, limit) : limit);
}

// The process of a number that the host has named, if it is one that the host can have started: whose end can be waited
// for, and which may be killed. Else null: then it is known by its stream alone, and ends when that does.
std::shared_ptr<process::Process> started_by(const GatewayEnd& host, pid_t pid, bool keeps_detached) {
  const process::Process* root = host.far_end().process();
  if (root == nullptr) {
    return nullptr;
  }
  process::Descent::Found found = process::Descent(*root).find(pid);
  return found.kind == process::Descent::Kind::kOurs
             ? std::make_shared<process::Process>(pid, std::move(found.pidfd), keeps_detached)
             : nullptr;
}

std::string make_token() {
  std::string token(kTokenSize, '\0');
  base::check("getrandom", [&] { return ::getrandom(token.data(), token.size(), 0); });
  return token;
}

// Of a traceback that is what was wrong.
std::string last_line(std::string text) {
  while (text.ends_with('\n')) {
    text.pop_back();
  }
  return text.substr(text.rfind('\n') + 1);
}

}  // namespace

std::string this_place() {
  const base::Fd file(::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
  if (!file && errno != ENOENT && errno != EACCES) {
    base::throw_system_error(errno, "open", "boot_id");  // for want of descriptors: that is no other machine
  }
  std::array<char, 64> bytes{};
  const ssize_t size = file ? ::read(file.get(), bytes.data(), bytes.size()) : 0;
  const std::string_view read(bytes.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  const std::string boot(read.substr(0, read.find('\n')));
  std::string place = boot;
  for (const char* name : {"net", "pid"}) {
    std::error_code error;
    place += " " + std::filesystem::read_symlink(std::string("/proc/self/ns/") + name, error).string();
    if (error || boot.empty()) {
      return "";
    }
  }
  return place;
}

SocketStart connect_to_server(const XSpec& spec, std::string_view hello, const base::Wait& wait) {
  const transport::Address address = transport::parse_address(spec.get("socket").value());
  SocketStart start;
  start.stream = transport::connect(address, within(kConnectsWithin, wait),
                                    "socket= needs a socketserver.py that listens there; is it running, can it be "
                                    "reached from here?");
  start.launch.kind = "Socket";
  start.launch.address = transport::to_string(address);
  start.first.append(transport::server_line(hello));
  return start;
}

SocketStart install_server(const XSpec& spec, GatewayEnd& host, const base::Wait& wait) {
  const std::string here = this_place();
  const std::string token = make_token();
  transport::LoopbackSocket loopback;
  SocketStart start;
  start.launch = transport::popen_launch(spec, {.executable = host.info().executable, .native_module = ""});
  List argv;
  for (const std::string& word : start.launch.argv) {
    argv.emplace_back(Bytes(word));
  }
  Dict env;
  for (const auto& [name, value] : start.launch.env) {
    env.emplace_back(Bytes(name), Bytes(value));
  }
  const Dict arguments{{"peer", Tuple{loopback.address().host, loopback.address().port}},
                       {"token", Bytes(token)},
                       {"argv", std::move(argv)},
                       {"env", std::move(env)},
                       {"seconds", static_cast<std::int64_t>(kListensFor.count())}};
  const Tuple task{socket_listener_source(), "<execnet socket listener>", 1, "listen", arguments};
  const auto fail = [&](const std::string& why) {
    throw HostNotFound(
        base::printable("no usable Python for '" + transport::without_secrets(spec.text()) + "': " + why));
  };
  std::shared_ptr<ChannelHandle> channel;
  int port = 0;
  std::string place;
  try {
    channel = host.exec(encode_value(Value(task)), wait);
    std::tie(port, place) =
        decode_value(channel->receive(within(kListensFor, wait)).view()).as<std::tuple<int, std::string>>();
  } catch (const Error& error) {
    fail("gateway '" + host.id() + "' cannot listen: " + last_line(error.what()));
  }
  if (place != here) {
    fail("gateway '" + host.id() + "' is not on this machine, and its socket is for this machine only; popen//via=" +
         host.id() + " starts an interpreter there");
  }
  start.stream =
      loopback.connect(port, within(kConnectsWithin, wait), "gateway '" + host.id() + "' was told to listen there");
  try {
    base::check("send", [&] { return ::send(start.stream.get(), token.data(), token.size(), MSG_NOSIGNAL); });
    start.process = started_by(host, decode_value(channel->receive(within(kListensFor, wait)).view()).as<pid_t>(),
                               spec.keeps_detached());
  } catch (const HostNotFound&) {
    throw;
  } catch (const Error& error) {
    fail("gateway '" + host.id() + "' has not started it: " + last_line(error.what()));
  }
  start.launch.kind = "Socket";
  start.launch.address = transport::to_string({loopback.address().host, port});
  start.first = transport::preamble(start.launch);
  return start;
}

}  // namespace execnet::core
