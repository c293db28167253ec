// Two relays, one at each end of a connection: a stream here, a channel, a stream there.
#include "connection/relay.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <execnet/error.hpp>
#include <future>
#include <thread>
#include <vector>

#include "base/syscall.hpp"
#include "connection/value_message.hpp"

namespace execnet::core {
namespace {

constexpr std::chrono::seconds kPatience{30};

base::Wait soon() { return {.deadline = base::Clock::now() + kPatience}; }

// One end of the connection, which relays between the channel of OPEN and a stream of the test's.
class End final : public ConnectionOwner, public RelayOwner, public std::enable_shared_from_this<End> {
 public:
  End(base::Fd link, Side side)
      : loop(std::make_shared<loop::Loop>()), connection(std::make_shared<Connection>(std::move(link), loop, side)) {}

  void on_hello(Lock& /*lock*/, base::Buffer) override {}
  void on_exec(Lock&, const std::shared_ptr<ChannelState>&, base::Buffer) override { FAIL(); }
  void on_open(Lock& lock, const std::shared_ptr<ChannelState>& state, base::Buffer) override { join(lock, state); }
  void on_status_request(Lock&, std::uint32_t) override { FAIL(); }
  void on_terminate(Lock&) override { FAIL(); }
  void on_stream_end(const std::string& error) override { connection->finish("the stream ended: " + error); }
  void on_relay_change(Connection::Lock& lock) override { connection->touch_all(lock); }

  // Joins the channel to a socket pair, whose other end is `stream`.
  void join(Lock& lock, const std::shared_ptr<ChannelState>& state) {
    auto [ours, relayed] = base::socket_pair();
    stream = std::move(ours);
    channel = state;
    relay = std::make_shared<Relay>(connection, state, weak_from_this());
    relay->take_channel(lock);
    relay->take_stream(lock, std::move(relayed));
    connection->touch_all(lock);
  }

  template <typename Condition>
  bool wait_until(const Condition& condition) {
    auto lock = connection->lock();
    return connection->wait_until(lock, this, soon(), [&] { return condition(lock); });
  }

  std::shared_ptr<loop::Loop> loop;
  std::shared_ptr<Connection> connection;
  base::Fd stream;
  std::shared_ptr<ChannelState> channel;
  std::shared_ptr<Relay> relay;
};

class RelayTest : public testing::Test {
 protected:
  RelayTest() {
    auto [a, b] = base::socket_pair();
    ::send(b.get(), wire::kMagic.data(), wire::kMagic.size(), 0);
    here_ = std::make_shared<End>(std::move(a), Side::kCoordinator);
    there_ = std::make_shared<End>(std::move(b), Side::kWorker);
    here_->connection->start(here_);
    there_->connection->start(there_);
  }

  ~RelayTest() override {
    for (const auto& end : {here_, there_}) {
      end->loop->stop();
      end->connection->finish("test over");
    }
  }

  // Has the other end join a stream; this one's channel to it.
  std::shared_ptr<ChannelState> open() {
    auto lock = here_->connection->lock();
    auto state = here_->connection->new_state(lock);
    here_->connection->post(lock, wire::FrameType::kOpen, state->id);
    return state;
  }

  void open_both() {
    const auto state = open();
    {
      auto lock = here_->connection->lock();
      here_->join(lock, state);
    }
    ASSERT_TRUE(there_->wait_until([&](auto&) { return there_->relay != nullptr; }));
  }

  void send_item(const std::shared_ptr<ChannelState>& state, const Value& item) {
    auto lock = here_->connection->lock();
    here_->connection->post(lock, wire::FrameType::kData, state->id, encode_value(item));
  }

  std::string cause() {
    auto lock = there_->connection->lock();
    EXPECT_TRUE(there_->connection->wait_until(lock, there_->connection.get(), soon(),
                                               [&] { return there_->connection->gone(lock).has_value(); }));
    return there_->connection->gone(lock).value_or("");
  }

  std::shared_ptr<End> here_;
  std::shared_ptr<End> there_;
};

void write_all(const base::Fd& stream, std::string_view bytes) {
  while (!bytes.empty()) {
    const auto count = base::check("send", [&] { return ::send(stream.get(), bytes.data(), bytes.size(), 0); });
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

// So many bytes, or less if the stream ends before.
std::string read_bytes(const base::Fd& stream, std::size_t size) {
  std::string bytes(size, '\0');
  std::size_t filled = 0;
  while (filled < size) {
    const auto count =
        base::check("recv", [&] { return ::recv(stream.get(), bytes.data() + filled, size - filled, 0); });
    if (count == 0) {
      break;
    }
    filled += static_cast<std::size_t>(count);
  }
  bytes.resize(filled);
  return bytes;
}

TEST_F(RelayTest, WhatGoesIntoOneStreamComesOutOfTheOther) {
  open_both();
  write_all(here_->stream, "there");
  EXPECT_EQ(read_bytes(there_->stream, 5), "there");
  write_all(there_->stream, "and back");
  EXPECT_EQ(read_bytes(here_->stream, 8), "and back");
}

TEST_F(RelayTest, MuchMoreThanTheWindowGoesBothWaysAtOnce) {
  open_both();
  const std::string much(8 * Relay::kWindow + 12345, 'm');
  std::thread there([&] { write_all(there_->stream, much); });
  std::thread here([&] { write_all(here_->stream, much); });
  auto back = std::async(std::launch::async, [&] { return read_bytes(here_->stream, much.size()); });
  EXPECT_TRUE(read_bytes(there_->stream, much.size()) == much);
  EXPECT_TRUE(back.get() == much);
  there.join();
  here.join();
}

TEST_F(RelayTest, TheEndOfTheChannelComesAfterWhatWasSent) {
  open_both();
  const std::string much(Relay::kWindow / 2, 'm');  // more than a socket holds
  std::thread writer([&] {
    write_all(here_->stream, much);
    here_->stream.reset();
  });
  ASSERT_TRUE(here_->wait_until([&](auto& lock) { return here_->relay->stream_ended(lock); }));
  {
    auto lock = here_->connection->lock();
    here_->connection->post(lock, wire::FrameType::kLast, here_->channel->id);
  }
  ASSERT_TRUE(there_->wait_until([&](auto& lock) { return there_->relay->channel_ended(lock); }));
  EXPECT_EQ(read_bytes(there_->stream, 2 * much.size()).size(), much.size());
  EXPECT_TRUE(there_->wait_until([&](auto& lock) { return there_->relay->flushed(lock); }));
  writer.join();
}

// A relay that learns its end may write, which lets go of the mutex: others make and drop channels meanwhile.
TEST_F(RelayTest, AllChannelsLearnTheirEndWhateverBecomesOfOthersMeanwhile) {
  struct Busy final : RelayOwner {
    explicit Busy(Connection& busy_connection) : connection(busy_connection) {}
    void on_relay_change(Connection::Lock& lock) override {
      for (int i = 0; i < 500; ++i) {
        connection.new_state(lock);
      }
    }
    Connection& connection;
  };
  Connection& connection = *there_->connection;
  auto lock = connection.lock();
  std::vector<std::shared_ptr<ChannelState>> states;
  for (int i = 0; i < 100; ++i) {
    states.push_back(connection.new_state(lock));
  }
  const auto owner = std::make_shared<Busy>(connection);
  const auto relay = std::make_shared<Relay>(there_->connection, states[50], owner);
  relay->take_channel(lock);
  connection.end_receiving(lock);
  EXPECT_TRUE(std::all_of(states.begin(), states.end(), [](const auto& state) { return state->no_more_items; }));
}

TEST_F(RelayTest, TheErrorOfTheOtherEndIsKept) {
  open_both();
  {
    auto lock = there_->connection->lock();
    there_->connection->close_channel(lock, there_->channel, "exit status 3");
  }
  ASSERT_TRUE(here_->wait_until([&](auto& lock) { return here_->relay->flushed(lock); }));
  auto lock = here_->connection->lock();
  EXPECT_EQ(here_->relay->error(lock), "exit status 3");
}

TEST_F(RelayTest, MoreThanTheWindowAllowsEndsTheConnection) {
  const auto state = open();  // without a relay here that would keep to it
  for (int i = 0; i < 4; ++i) {
    send_item(state, Bytes(std::string(Relay::kWindow / 2, 'm')));
  }
  EXPECT_NE(cause().find("more bytes than the window allows"), std::string::npos) << cause();
}

TEST_F(RelayTest, AcknowledgingWhatWasNotSentEndsTheConnection) {
  send_item(open(), Value(1));
  EXPECT_NE(cause().find("more bytes acknowledged than were sent"), std::string::npos) << cause();
}

TEST_F(RelayTest, AnItemThatIsNeitherBytesNorANumberEndsTheConnection) {
  send_item(open(), "text");
  EXPECT_NE(cause().find("int"), std::string::npos) << cause();
}

}  // namespace
}  // namespace execnet::core
