#include "transport/address.hpp"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <execnet/error.hpp>

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

TEST(Address, ConnectsOrSaysWhyNotAndWhatToDo) {
  const base::Fd listener(base::check("socket", [] { return ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); }));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof name;
  base::check("bind", [&] { return ::bind(listener.get(), reinterpret_cast<sockaddr*>(&name), size); });
  base::check("getsockname", [&] { return ::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&name), &size); });
  const Address address{"127.0.0.1", ntohs(name.sin_port)};
  try {
    connect(address, {}, "start it first");
    ADD_FAILURE() << "nobody listens";
  } catch (const HostNotFound& error) {
    EXPECT_EQ(std::string(error.what()),
              "cannot connect to " + to_string(address) + ": Connection refused; start it first");
  }
  base::check("listen", [&] { return ::listen(listener.get(), 1); });
  const base::Fd connection = connect(address, {}, "");
  EXPECT_EQ(::send(connection.get(), "x", 1, 0), 1);
}

}  // namespace
}  // namespace execnet::transport
