// A coordinator's connection with windows; the worker is the test, which reads and writes frames byte by byte.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <execnet/error.hpp>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/syscall.hpp"
#include "connection/channel_handle.hpp"
#include "connection/connection.hpp"
#include "connection/value_message.hpp"
#include "wire/frame.hpp"

namespace execnet::core {
namespace {

using namespace std::string_literals;
using wire::FrameType;

constexpr std::chrono::seconds kPatience{30};
constexpr std::uint64_t kWindow = 800;

base::Wait soon() { return {.deadline = base::Clock::now() + kPatience}; }
base::Wait at_once() { return {.deadline = base::Clock::now()}; }

class Owner final : public ConnectionOwner {
 public:
  explicit Owner(base::Fd stream)
      : loop(std::make_shared<loop::Loop>()),
        connection(std::make_shared<Connection>(std::move(stream), loop, Side::kCoordinator)) {}

  void on_hello(Lock&, base::Buffer) override {}
  void on_exec(Lock&, const std::shared_ptr<ChannelState>&, base::Buffer) override { FAIL(); }
  void on_open(Lock&, const std::shared_ptr<ChannelState>&, base::Buffer) override { FAIL(); }
  void on_status_request(Lock&, std::uint32_t) override { FAIL(); }
  void on_terminate(Lock&) override { FAIL(); }
  void on_stream_end(const std::string& error) override { connection->finish(error); }

  const std::shared_ptr<loop::Loop> loop;
  const std::shared_ptr<Connection> connection;
};

class ConnectionFlow : public ::testing::Test {
 protected:
  ~ConnectionFlow() override {
    owner_->loop->stop();
    owner_->connection->finish("test over");
  }

  // A window for all channels.
  void start(std::uint64_t window) {
    auto lock = owner_->connection->lock();
    owner_->connection->set_window(lock, window);
    lock.unlock();
    owner_->connection->start(owner_);
    write(std::string(wire::kMagic));
  }

  std::shared_ptr<ChannelHandle> new_channel() {
    auto lock = owner_->connection->lock();
    return owner_->connection->new_channel(lock);
  }

  static std::string frame(FrameType type, std::uint32_t channel, const std::string& payload = "",
                           std::uint32_t credit = 0) {
    const auto header = wire::pack({type, 0, channel, static_cast<std::uint32_t>(payload.size()), credit});
    return std::string(header.data(), header.size()) + payload;
  }

  void write(const std::string& bytes) const {
    ASSERT_EQ(::send(there_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }

  // The next so many bytes that come.
  std::string read(std::size_t size) {
    std::string bytes(size, '\0');
    for (std::size_t at = 0; at < size;) {
      pollfd ready{there_.get(), POLLIN, 0};
      if (::poll(&ready, 1, 30'000) != 1) {
        ADD_FAILURE() << "nothing comes";
        return "";
      }
      const ssize_t count = ::recv(there_.get(), &bytes[at], size - at, 0);
      if (count <= 0) {
        ADD_FAILURE() << "the stream has ended";
        return "";
      }
      at += static_cast<std::size_t>(count);
    }
    return bytes;
  }

  // Whether all that came is read: a frame that the connection writes now comes next.
  bool nothing_else_came() {
    auto lock = owner_->connection->lock();
    owner_->connection->post(lock, FrameType::kTerminate, 0);
    lock.unlock();
    const std::string next = frame(FrameType::kTerminate, 0);
    return read(next.size()) == next;
  }

  // The error that the connection ends with.
  std::string end() {
    auto lock = owner_->connection->lock();
    EXPECT_TRUE(owner_->connection->wait_until(lock, owner_->connection.get(), soon(),
                                               [&] { return owner_->connection->gone(lock).has_value(); }));
    return owner_->connection->gone(lock).value_or("");
  }

  // Returns when what was written before is taken in.
  void sync() {
    const auto channel = new_channel();
    write(frame(FrameType::kData, channel->id(), "N"s));
    channel->receive(soon());
  }

 private:
  std::pair<base::Fd, base::Fd> pair_ = base::socket_pair();

 protected:
  const std::shared_ptr<Owner> owner_ = std::make_shared<Owner>(std::move(pair_.first));
  const base::Fd there_ = std::move(pair_.second);
};

TEST_F(ConnectionFlow, WithoutWindowNoFrameIsSpentOnIt) {
  start(kUnbounded);
  const auto channel = new_channel();
  write(frame(FrameType::kData, channel->id(), std::string(100'000, 'x')));
  EXPECT_EQ(channel->receive(soon()).size(), 100'000U);
  EXPECT_TRUE(nothing_else_came());
}

TEST_F(ConnectionFlow, TheWorkedExampleOfTheDocumentation) {
  start(kUnbounded);
  new_channel();
  new_channel();
  const auto channel = new_channel();
  ASSERT_EQ(channel->id(), 5U);
  ASSERT_EQ(read(2 * 16).size(), 32U);  // the CLOSE frames of the first two
  channel->set_window(100);
  EXPECT_EQ(read(22), "\x0c\0\0\0\5\0\0\0\6\0\0\0\0\0\0\0\x46\0\0\0\x64\x51"s);
  channel->send(encode_value(Value(Bytes(std::string(94, 'x')))), soon());
  EXPECT_EQ(read(16), "\3\0\0\0\5\0\0\0\x64\0\0\0\0\0\0\0"s);
  EXPECT_EQ(read(100), "\x41\0\0\0\x5e"s + std::string(94, 'x') + "\x51");
  const base::Buffer next = encode_value(Value(Bytes(std::string(6, 'y'))));
  EXPECT_THROW(channel->send(base::Buffer(next.view()), at_once()), TimeoutError);
  write("\x0a\0\0\0\5\0\0\0\0\0\0\0\x64\0\0\0"s);
  channel->send(base::Buffer(next.view()), soon());
  EXPECT_EQ(read(16), "\3\0\0\0\5\0\0\0\x0c\0\0\0\0\0\0\0"s);
  EXPECT_EQ(read(12), "\x41\0\0\0\6yyyyyy\x51"s);
}

TEST_F(ConnectionFlow, ASenderThatIsLateSaysWhy) {
  start(kWindow);
  const auto channel = new_channel();
  channel->send(base::Buffer(std::string(kWindow, 'x')), soon());
  try {
    channel->send(base::Buffer("y"), at_once());
    FAIL();
  } catch (const TimeoutError& error) {
    EXPECT_STREQ(error.what(),
                 "cannot send to <Channel id=1 open> in time: of its window of 800 bytes, 800 are on their way, and "
                 "not received by the other side");
  }
}

TEST_F(ConnectionFlow, WhatIsTakenIsToldByEighths) {
  start(kWindow);
  const auto channel = new_channel();
  for (int i = 0; i < 3; ++i) {
    write(frame(FrameType::kData, channel->id(), std::string(60, 'x')));
  }
  EXPECT_EQ(channel->receive(soon()).size(), 60U);
  EXPECT_EQ(channel->receive(soon()).size(), 60U);
  EXPECT_EQ(channel->receive(soon()).size(), 60U);
  EXPECT_EQ(read(16), frame(FrameType::kCredit, channel->id(), "", 120));
  EXPECT_TRUE(nothing_else_came());
}

TEST_F(ConnectionFlow, NobodyIsToldWhoSendsNoMore) {
  start(kWindow);
  const auto channel = new_channel();
  write(frame(FrameType::kData, channel->id(), std::string(kWindow, 'x')) + frame(FrameType::kLast, channel->id()));
  sync();
  EXPECT_EQ(read(16), frame(FrameType::kClose, 3));  // of sync()
  EXPECT_EQ(channel->receive(soon()).size(), kWindow);
  EXPECT_TRUE(nothing_else_came());
}

TEST_F(ConnectionFlow, ASenderThatWaitsIsWokenByTheCloseOfTheOtherSide) {
  start(kWindow);
  const auto channel = new_channel();
  channel->send(base::Buffer(std::string(kWindow, 'x')), soon());
  auto late = std::async(std::launch::async, [&] { channel->send(base::Buffer("y"), soon()); });
  write(frame(FrameType::kClose, channel->id()));
  EXPECT_THROW(late.get(), ChannelClosed);
}

TEST_F(ConnectionFlow, ASenderThatWaitsIsWokenByTheEndOfTheStream) {
  start(kWindow);
  const auto channel = new_channel();
  channel->send(base::Buffer(std::string(kWindow, 'x')), soon());
  auto late = std::async(std::launch::async, [&] { channel->send(base::Buffer("y"), soon()); });
  ::shutdown(there_.get(), SHUT_RDWR);
  EXPECT_THROW(late.get(), GatewayGone);
}

TEST_F(ConnectionFlow, CreditThatWasNotEarnedEndsTheConnection) {
  start(kWindow);
  const auto channel = new_channel();
  channel->send(base::Buffer("12345"), soon());
  write(frame(FrameType::kCredit, channel->id(), "", 6));
  EXPECT_EQ(end(), "credit for 6 bytes on channel 1, where 5 are on their way");
}

TEST_F(ConnectionFlow, CreditForAnUnknownChannelMakesNone) {
  start(kWindow);
  write(frame(FrameType::kCredit, 2, "", 7) + frame(FrameType::kCredit, 999, "", 4'000'000'000));
  sync();
  auto lock = owner_->connection->lock();
  EXPECT_EQ(owner_->connection->open_channels(lock), 0U);
}

TEST_F(ConnectionFlow, CreditForAClosedChannelIsTooLate) {
  start(kWindow);
  const auto channel = new_channel();
  channel->send(base::Buffer("12345"), soon());
  channel->close(std::nullopt);
  write(frame(FrameType::kCredit, channel->id(), "", 5) + frame(FrameType::kCredit, channel->id(), "", 5));
  sync();
}

TEST_F(ConnectionFlow, AWorkerThatIgnoresTheWindowIsCutOff) {
  start(kWindow);
  const auto channel = new_channel();
  write(frame(FrameType::kData, channel->id(), std::string(kWindow, 'x')) +
        frame(FrameType::kData, channel->id(), std::string(1, 'x')));
  EXPECT_EQ(end(), "more bytes than the window allows on channel 1");
  EXPECT_EQ(channel->receive(soon()).size(), kWindow);  // what had arrived is not lost
}

TEST_F(ConnectionFlow, AWindowIsANumberOfBytesOrNone) {
  for (const Value& wrong : {Value(0), Value(-1), Value("8M"), Value(true), Value(1.5)}) {
    auto [here, there] = base::socket_pair();
    const auto owner = std::make_shared<Owner>(std::move(here));
    owner->connection->start(owner);
    const base::Buffer payload = encode_value(wrong);
    const std::string bytes = std::string(wire::kMagic) + frame(FrameType::kWindow, 2, std::string(payload.view()));
    ASSERT_EQ(::send(there.get(), bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
    auto lock = owner->connection->lock();
    EXPECT_TRUE(owner->connection->wait_until(lock, owner->connection.get(), soon(), [&] {
      return owner->connection->gone(lock).has_value();
    })) << wrong;
    lock.unlock();
    owner->loop->stop();
  }
}

TEST_F(ConnectionFlow, AMessageThatIsTakenBackGivesItsRoomBack) {
  start(16 << 20);
  const auto channel = new_channel();
  // More than the socket and what is cut ahead can hold, and nobody reads.
  EXPECT_THROW(channel->send(base::Buffer(std::string(8 << 20, 'x')), at_once()), TimeoutError);
  EXPECT_EQ(channel->flow().outstanding, 0U);
}

}  // namespace
}  // namespace execnet::core
