#include "transport/address.hpp"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdint>
#include <execnet/error.hpp>
#include <utility>

#include "base/syscall.hpp"

namespace execnet::transport {
namespace {

TEST(Address, IsHostAndPortAndReadsAsItWasWritten) {
  for (const auto& [text, host, port] : std::initializer_list<std::tuple<const char*, const char*, int>>{
           {"localhost:8888", "localhost", 8888},
           {"127.0.0.1:1", "127.0.0.1", 1},
           {"[::1]:65535", "::1", 65535},
       }) {
    const Address address = parse_address(text);
    EXPECT_EQ(address.host, host);
    EXPECT_EQ(address.port, port);
    EXPECT_EQ(to_string(address), text);
  }
}

// A socket of the loopback device, which does not listen yet, and its port.
std::pair<base::Fd, int> bound_socket() {
  base::Fd socket(base::check("socket", [] { return ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof name;
  base::check("bind", [&] { return ::bind(socket.get(), reinterpret_cast<sockaddr*>(&name), size); });
  base::check("getsockname", [&] { return ::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&name), &size); });
  return {std::move(socket), ntohs(name.sin_port)};
}

TEST(Address, ConnectsOrSaysWhyNotAndWhatToDo) {
  const auto [listener, port] = bound_socket();
  const Address address{"127.0.0.1", port};
  try {
    connect(address, {}, "start it first");
    ADD_FAILURE() << "nobody listens";
  } catch (const HostNotFound& error) {
    EXPECT_EQ(std::string(error.what()),
              "cannot connect to " + to_string(address) + ": Connection refused; start it first");
  }
  base::check("listen", [&listener = listener] { return ::listen(listener.get(), 1); });
  const base::Fd connection = connect(address, {}, "");
  EXPECT_EQ(::send(connection.get(), "x", 1, 0), 1);
}

TEST(LoopbackSocket, ConnectsFromTheAddressThatItHadBefore) {
  const auto [listener, port] = bound_socket();
  base::check("listen", [&listener = listener] { return ::listen(listener.get(), 1); });
  LoopbackSocket socket;
  EXPECT_EQ(socket.address().host, "127.0.0.1");
  const base::Fd connection = socket.connect(port, {}, "");
  EXPECT_EQ(::send(connection.get(), "x", 1, 0), 1);
  sockaddr_in name{};
  socklen_t size = sizeof name;
  const base::Fd accepted(::accept(listener.get(), reinterpret_cast<sockaddr*>(&name), &size));
  EXPECT_EQ(name.sin_addr.s_addr, htonl(INADDR_LOOPBACK));
  EXPECT_EQ(ntohs(name.sin_port), socket.address().port);
}

TEST(LoopbackSocket, HasAnAddressThatNobodyElseCanHave) {
  const LoopbackSocket socket;
  for (const in_addr_t host : {INADDR_LOOPBACK, INADDR_ANY}) {
    const base::Fd other(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int on = 1;
    ASSERT_EQ(::setsockopt(other.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
    ASSERT_EQ(::setsockopt(other.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on), 0);
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = htonl(host);
    name.sin_port = htons(static_cast<std::uint16_t>(socket.address().port));
    EXPECT_EQ(::bind(other.get(), reinterpret_cast<sockaddr*>(&name), sizeof name), -1);
    EXPECT_EQ(errno, EADDRINUSE);
  }
}

TEST(LoopbackSocket, SaysWhyItDoesNotConnectAndWhatToDo) {
  const auto [closed, port] = bound_socket();
  LoopbackSocket socket;
  try {
    socket.connect(port, {}, "start it first");
    ADD_FAILURE() << "nobody listens";
  } catch (const HostNotFound& error) {
    EXPECT_EQ(std::string(error.what()),
              "cannot connect to 127.0.0.1:" + std::to_string(port) + ": Connection refused; start it first");
  }
}

}  // namespace
}  // namespace execnet::transport
