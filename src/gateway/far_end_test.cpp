// What is behind a gateway's stream, when that is a process at a proxy. The others: tests/python/test_via.py,
// test_socket.py.
#include "gateway/far_end.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string>
#include <thread>

#include "base/syscall.hpp"
#include "connection/value_message.hpp"

namespace execnet::core {
namespace {

constexpr int kPatienceMs = 30'000;

bool becomes_readable(const base::Fd& fd) {
  pollfd entry{fd.get(), POLLIN, 0};
  return ::poll(&entry, 1, kPatienceMs) == 1;
}

// A proxy that answers before it has read all of the request.
void answer_at_once(const base::Fd& stream) {
  ASSERT_TRUE(becomes_readable(stream));
  const base::Buffer item = encode_value(Value(Bytes("early")));
  const auto header =
      wire::pack({.type = wire::FrameType::kData, .channel = 1, .length = static_cast<std::uint32_t>(item.size())});
  const std::string answer = std::string(wire::kMagic).append(header.data(), header.size()).append(item.view());
  ASSERT_EQ(::send(stream.get(), answer.data(), answer.size(), MSG_NOSIGNAL), static_cast<ssize_t>(answer.size()));
  std::array<char, 1 << 16> request;
  while (::recv(stream.get(), request.data(), request.size(), 0) > 0) {
  }
}

TEST(ProxiedProcess, HasWhatAProxySaysWhileTheRequestIsStillOnItsWay) {
  for (int i = 0; i < 10; ++i) {
    auto [here, there] = base::socket_pair();
    auto [ours, relayed] = base::socket_pair();
    const auto loop = std::make_shared<loop::Loop>();
    const auto connection = std::make_shared<Connection>(std::move(here), loop, Side::kCoordinator);
    connection->start({});
    std::thread proxy([&stream = there] { answer_at_once(stream); });
    transport::Launch launch;
    launch.argv = {std::string(std::size_t{8} << 20, 'x')};
    const auto process = ProxiedProcess::open(connection, launch, std::move(relayed));
    std::array<char, 5> said{};
    EXPECT_TRUE(becomes_readable(ours));
    EXPECT_EQ(::recv(ours.get(), said.data(), said.size(), MSG_DONTWAIT), 5);
    connection->shut_down();
    proxy.join();
    loop->stop();
    connection->finish("test over");
  }
}

}  // namespace
}  // namespace execnet::core
