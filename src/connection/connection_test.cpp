// A coordinator's connection against a real WorkerEnd whose code is C++, over a socket pair.
#include "connection/connection.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <ctime>
#include <execnet/error.hpp>
#include <future>
#include <stdexcept>
#include <thread>
#include <vector>

#include "base/syscall.hpp"
#include "connection/channel_handle.hpp"
#include "connection/value_message.hpp"
#include "gateway/worker_end.hpp"
#include "hello.hpp"
#include "processes.hpp"

namespace execnet::core {
namespace {

constexpr std::chrono::seconds kPatience{30};

base::Wait soon() { return {.deadline = base::Clock::now() + kPatience}; }

// The coordinator's side, without a process.
class Peer final : public ConnectionOwner, public std::enable_shared_from_this<Peer> {
 public:
  explicit Peer(base::Fd stream)
      : loop(std::make_shared<loop::Loop>()),
        connection(std::make_shared<Connection>(std::move(stream), loop, Side::kCoordinator)) {}
  // To be called before the last reference goes: the loop thread may hold one for a moment.
  void stop() const {
    loop->stop();
    connection->finish("test over");
  }

  void on_hello(Lock& lock, base::Buffer payload) override {
    hello = std::move(payload);
    connection->agree_on_rings(lock);
    connection->use_rings(lock);
  }
  void on_exec(Lock&, const std::shared_ptr<ChannelState>&, base::Buffer) override { FAIL(); }
  void on_open(Lock&, const std::shared_ptr<ChannelState>&, base::Buffer) override { FAIL(); }
  void on_status_request(Lock&, std::uint32_t) override { FAIL(); }
  void on_terminate(Lock&) override { FAIL(); }
  void on_stream_end(const std::string& error) override { connection->finish("the stream ended: " + error); }

  std::shared_ptr<ChannelHandle> exec(std::string_view what) {
    auto lock = connection->lock();
    auto channel = connection->new_channel(lock);
    connection->send(lock, wire::FrameType::kExec, channel->id(), base::Buffer(what), soon());
    return channel;
  }

  std::shared_ptr<loop::Loop> loop;
  std::shared_ptr<Connection> connection;
  std::optional<base::Buffer> hello;
};

struct StartedPeer {
  explicit StartedPeer(base::Fd stream) : peer(std::make_shared<Peer>(std::move(stream))) {
    peer->connection->start(peer);
  }
  ~StartedPeer() { peer->stop(); }
  StartedPeer(const StartedPeer&) = delete;
  StartedPeer& operator=(const StartedPeer&) = delete;
  Peer* operator->() const { return peer.get(); }

  const std::shared_ptr<Peer> peer;
};

// Runs tasks by name: what a Python worker would do, in C++.
std::optional<std::string> run_task(const WorkerEnd::Task& task) {
  ChannelHandle& channel = *task.channel;
  const std::string what(task.payload.view());
  std::optional<std::string> error;
  try {
    if (what == "echo") {
      for (;;) {
        channel.send(channel.receive({}), {});
      }
    } else if (what == "fail") {
      error = "it failed";
    } else if (what == "sink") {
      for (std::size_t count = 1;; ++count) {
        if (channel.receive({}).view() == "how many?") {
          channel.send(base::Buffer(std::to_string(count)), {});
        }
      }
    } else if (what == "block") {
      static_cast<void>(channel.receive({}));
    }
  } catch (const Error&) {
    // The channel or the gateway has ended.
  }
  return error;
}

class ConnectionTest : public ::testing::Test {
 protected:
  explicit ConnectionTest(bool rings = false) {
    auto [here, there] = base::socket_pair();
    peer_ = std::make_shared<Peer>(std::move(here));
    if (rings) {
      peer_->connection->offer_rings();
    }
    peer_->connection->start(peer_);
    worker_ = std::thread([stream = std::move(there)]() mutable {
      const auto end = WorkerEnd::open(std::move(stream), run_task, {kPatience, kPatience});
      ASSERT_TRUE(end->wait_setup(soon()));
      end->say_hello({{3, 11, 7, "final", 0}, "c++", "test", "/"});
      end->serve({});
      end->stop();
    });
    auto lock = peer_->connection->lock();
    peer_->connection->post(lock, wire::FrameType::kHello, 0, testing::coordinator_hello());
    EXPECT_TRUE(
        peer_->connection->wait_until(lock, peer_->connection.get(), soon(), [&] { return peer_->hello.has_value(); }));
  }

  ~ConnectionTest() override {
    {
      auto lock = peer_->connection->lock();
      peer_->connection->post(lock, wire::FrameType::kTerminate, 0);
    }
    worker_.join();
    peer_->stop();
  }

  // What it waits for may be that the other side, which waits for room as well, is read from.
  void who_waits_for_room_reads() {
    const auto channel = peer_->exec("echo");
    std::promise<void> held;
    std::promise<void> over;
    peer_->loop->call_after(std::chrono::milliseconds(0), [&held, ends = over.get_future().share()] {
      held.set_value();
      ends.wait();
    });
    held.get_future().wait();
    const std::string item(1 << 20, 'x');
    for (int i = 0; i < 32; ++i) {  // and none is received meanwhile
      ASSERT_NO_THROW(channel->send(base::Buffer(item), soon()));
    }
    over.set_value();
    for (int i = 0; i < 32; ++i) {
      EXPECT_EQ(channel->receive(soon()).size(), item.size());
    }
  }

  // It waits long for one message, another thread for many: these take no way over the first one.
  void who_reads_for_others_stands_back() {
    const auto seldom = peer_->exec("echo");
    const auto often = peer_->exec("echo");
    std::promise<clockid_t> started;
    auto waits = std::async(std::launch::async, [&] {
      clockid_t clock{};
      EXPECT_EQ(::pthread_getcpuclockid(pthread_self(), &clock), 0);
      started.set_value(clock);
      return seldom->receive(soon()).size();
    });
    const clockid_t clock = started.get_future().get();
    const auto time_of_it = [&] {
      timespec time{};
      EXPECT_EQ(::clock_gettime(clock, &time), 0);
      return std::pair(time.tv_sec, time.tv_nsec);
    };
    const auto end = base::Clock::now() + kPatience;
    const auto at_first = time_of_it();
    bool asleep = false;
    while (!asleep && base::Clock::now() < end) {
      const auto before = time_of_it();
      for (int i = 0; i < 100; ++i) {
        often->send(base::Buffer("there"), soon());
        ASSERT_EQ(often->receive(soon()).view(), "there");
      }
      asleep = before != at_first && time_of_it() == before;
    }
    EXPECT_TRUE(asleep);
    seldom->send(base::Buffer("once"), soon());
    EXPECT_EQ(waits.get(), 4);
  }

  std::shared_ptr<Peer> peer_;
  std::thread worker_;
};

class ConnectionByRings : public ConnectionTest {
 protected:
  ConnectionByRings() : ConnectionTest(true) {}
};

TEST_F(ConnectionTest, SaysHelloBothWays) {
  const Value hello = decode_value(peer_->hello->view());
  EXPECT_EQ(hello["implementation"].as<std::string>(), "native");
  EXPECT_EQ(hello["pid"].as<std::int64_t>(), ::getpid());
}

TEST_F(ConnectionTest, EchoesSmallAndHugeMessagesUnchanged) {
  const auto channel = peer_->exec("echo");
  for (const std::size_t size : {0UL, 1UL, 100UL, 65'536UL, 300'000UL, 20'000'000UL}) {
    std::string payload(size, 'x');
    for (std::size_t i = 0; i < size; i += 1000) {
      payload[i] = static_cast<char>(i / 1000);
    }
    channel->send(base::Buffer(payload), soon());
    EXPECT_TRUE(channel->receive(soon()).view() == payload) << size;
  }
}

TEST_F(ConnectionTest, KeepsTheOrderOfEachChannelWithManyThreadsAtOnce) {
  constexpr int kThreads = 8;
  constexpr int kMessages = 300;
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const auto channel = peer_->exec("echo");
      for (int i = 0; i < kMessages; ++i) {
        channel->send(base::Buffer(std::to_string(t) + ":" + std::to_string(i)), soon());
      }
      for (int i = 0; i < kMessages; ++i) {
        right += channel->receive(soon()).view() == std::to_string(t) + ":" + std::to_string(i) ? 1 : 0;
      }
    });
  }
  for (auto& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(right, kThreads * kMessages);
}

TEST_F(ConnectionTest, ManyThreadsReceiveFromOneChannelAndEachItemGoesToOne) {
  const auto channel = peer_->exec("echo");
  constexpr int kThreads = 4;
  constexpr int kEach = 200;
  std::atomic<int> sum = 0;
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kEach; ++i) {
        sum += std::stoi(std::string(channel->receive(soon()).view()));
      }
    });
  }
  int expected = 0;
  for (int i = 0; i < kThreads * kEach; ++i) {
    channel->send(base::Buffer(std::to_string(i)), soon());
    expected += i;
  }
  for (auto& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(sum, expected);
}

TEST_F(ConnectionTest, AnErrorArrivesOnceAfterTheItemsThenTheEnd) {
  const auto channel = peer_->exec("fail");
  EXPECT_THROW(static_cast<void>(channel->receive(soon())), RemoteError);
  EXPECT_THROW(static_cast<void>(channel->receive(soon())), EndOfChannel);
  EXPECT_TRUE(channel->isclosed());
  EXPECT_THROW(channel->send(base::Buffer("x"), soon()), ChannelClosed);
  channel->waitclose(soon());
}

TEST_F(ConnectionTest, ReceiveEndsWhenItsTimeIsUp) {
  const auto channel = peer_->exec("block");
  EXPECT_THROW(static_cast<void>(channel->receive({.deadline = base::Clock::now() + std::chrono::milliseconds(10)})),
               TimeoutError);
  EXPECT_THROW(channel->waitclose({.deadline = base::Clock::now()}), TimeoutError);
}

TEST_F(ConnectionTest, ClosingInOneThreadWakesAReceiverInAnother) {
  const auto channel = peer_->exec("block");
  std::promise<void> about_to_wait;
  auto waiting = std::async(std::launch::async, [&] {
    about_to_wait.set_value();
    EXPECT_THROW(static_cast<void>(channel->receive(soon())), EndOfChannel);
  });
  about_to_wait.get_future().wait();
  channel->close(std::nullopt);
  EXPECT_EQ(waiting.wait_for(kPatience), std::future_status::ready);
}

TEST_F(ConnectionTest, ADroppedChannelIsForgottenOnBothSides) {
  for (int i = 0; i < 50; ++i) {
    const auto channel = peer_->exec("echo");
    channel->send(base::Buffer("x"), soon());
    EXPECT_EQ(channel->receive(soon()).view(), "x");
  }
  const auto status = [&] {
    auto lock = peer_->connection->lock();
    auto channel = peer_->connection->new_channel(lock);
    peer_->connection->send(lock, wire::FrameType::kStatus, channel->id(), {}, soon());
    lock.unlock();
    return decode_value(channel->receive(soon()).view());
  };
  // The last of the fifty may still be on its way out over there: ask until it is.
  const auto until = base::Clock::now() + kPatience;
  while (status()["numchannels"].as<int>() > 1 && base::Clock::now() < until) {
  }
  EXPECT_LE(status()["numchannels"].as<int>(), 1);
  auto lock = peer_->connection->lock();
  EXPECT_EQ(peer_->connection->open_channels(lock), 0U);
}

TEST_F(ConnectionTest, AStreamThatIsCutSaysSoToEveryWaiter) {
  const auto first = peer_->exec("block");
  const auto second = peer_->exec("block");
  auto waiting =
      std::async(std::launch::async, [&] { EXPECT_THROW(static_cast<void>(first->receive(soon())), GatewayGone); });
  auto closing = std::async(std::launch::async, [&] { EXPECT_THROW(second->waitclose(soon()), GatewayGone); });
  peer_->connection->shut_down();
  EXPECT_EQ(waiting.wait_for(kPatience), std::future_status::ready);
  EXPECT_EQ(closing.wait_for(kPatience), std::future_status::ready);
  EXPECT_THROW(first->send(base::Buffer("x"), soon()), GatewayGone);
}

TEST_F(ConnectionTest, WhoIsToBeToldLosesWhatItSendsBefore) {
  struct ToldWhen final : Callback {
    std::optional<std::string> on_item(base::Buffer, StringConfig) override { return std::nullopt; }
    void on_end() override {
      about_to_end.set_value();
      may_end.get_future().wait();
    }
    std::promise<void> about_to_end;
    std::promise<void> may_end;
  };
  const auto callback = std::make_shared<ToldWhen>();
  const auto channel = peer_->exec("block");
  ASSERT_FALSE(channel->is_to_be_told());
  static_cast<void>(channel->set_callback(callback));
  ASSERT_TRUE(channel->is_to_be_told());
  peer_->connection->shut_down();
  callback->about_to_end.get_future().wait();
  channel->send(base::Buffer("x"), soon(), channel->is_to_be_told());
  callback->may_end.set_value();
  EXPECT_THROW(channel->waitclose(soon()), GatewayGone);
  EXPECT_FALSE(channel->is_to_be_told());
  channel->send(base::Buffer("x"), soon(), true);  // called before it was told
  EXPECT_THROW(channel->send(base::Buffer("x"), soon(), channel->is_to_be_told()), GatewayGone);
}

TEST_F(ConnectionTest, WhoWaitsForRoomReads) { who_waits_for_room_reads(); }
TEST_F(ConnectionByRings, WhoWaitsForRoomReads) {
  EXPECT_TRUE(peer_->connection->has_rings());
  who_waits_for_room_reads();
}

TEST_F(ConnectionTest, WhoReadsForOthersStandsBack) { who_reads_for_others_stands_back(); }
TEST_F(ConnectionByRings, WhoReadsForOthersStandsBack) {
  ASSERT_TRUE(peer_->connection->has_rings());
  who_reads_for_others_stands_back();
}

TEST_F(ConnectionTest, ABlockedSenderHasATimeOutAndLeavesTheStreamWhole) {
  const auto stuck = peer_->exec("block");  // reads one item; the worker's loop takes in the rest
  const auto channel = peer_->exec("echo");
  // More than fits into any buffer: with the deadline already over it is taken back half way.
  EXPECT_THROW(channel->send(base::Buffer(std::string(64 << 20, 'x')), {.deadline = base::Clock::now()}), TimeoutError);
  channel->send(base::Buffer("after"), soon());
  EXPECT_EQ(channel->receive(soon()).view(), "after");
}

// What waits in a greenlet, here with nothing else to run in its thread.
class LoneHub final : public base::Hub {
 public:
  void wait_readable(int fd, const base::Deadline& deadline) const override {
    ++waits;
    if (abandon) {
      throw std::domain_error("the greenlet was killed");
    }
    pollfd entry{fd, POLLIN, 0};
    base::poll_until({&entry, 1}, {.deadline = deadline});
  }

  base::Wait wait(base::Deadline deadline = base::Clock::now() + kPatience) const {
    return {.deadline = deadline, .hub = this};
  }

  mutable std::atomic<int> waits = 0;
  bool abandon = false;
};

TEST_F(ConnectionTest, GreenletsAndThreadsWaitBesideEachOther) {
  const LoneHub hub;
  std::vector<std::future<void>> users;
  for (int user = 0; user < 6; ++user) {
    users.push_back(std::async(std::launch::async, [&, wait = user % 2 == 0 ? hub.wait() : soon()] {
      const auto channel = peer_->exec("echo");
      for (const std::size_t size : {1UL, 2'000'000UL, 3UL, 70'000UL}) {
        const std::string text(size, 'x');
        channel->send(base::Buffer(text), wait);
        EXPECT_EQ(channel->receive(wait).view(), text);
      }
    }));
  }
  for (auto& user : users) {
    EXPECT_EQ(user.wait_for(kPatience), std::future_status::ready);
  }
  EXPECT_GT(hub.waits, 0);
}

TEST_F(ConnectionTest, AGreenletsWaitEndsWhenItsTimeIsUp) {
  const LoneHub hub;
  const auto channel = peer_->exec("block");
  EXPECT_THROW(static_cast<void>(channel->receive(hub.wait(base::Clock::now() + std::chrono::milliseconds(10)))),
               TimeoutError);
  EXPECT_THROW(channel->waitclose(hub.wait(base::Clock::now())), TimeoutError);
  EXPECT_EQ(hub.waits, 1);
}

TEST_F(ConnectionTest, AGreenletThatIsKilledLeavesTheStreamWhole) {
  LoneHub hub;
  hub.abandon = true;
  const auto stuck = peer_->exec("block");
  const auto channel = peer_->exec("echo");
  EXPECT_THROW(static_cast<void>(channel->receive(hub.wait())), std::domain_error);
  // More than fits into any buffer, so that there is something to wait for.
  EXPECT_THROW(channel->send(base::Buffer(std::string(64 << 20, 'x')), hub.wait()), std::domain_error);
  channel->send(base::Buffer("after"), soon());
  EXPECT_EQ(channel->receive(soon()).view(), "after");
}

TEST_F(ConnectionTest, AStreamThatIsCutSaysSoToGreenlets) {
  const LoneHub hub;
  const auto channel = peer_->exec("block");
  auto waiting = std::async(std::launch::async,
                            [&] { EXPECT_THROW(static_cast<void>(channel->receive(hub.wait())), GatewayGone); });
  auto sending = std::async(std::launch::async, [&] {
    EXPECT_THROW(for (;;) { channel->send(base::Buffer(std::string(1 << 20, 'x')), hub.wait()); }, Error);
  });
  peer_->connection->shut_down();
  EXPECT_EQ(waiting.wait_for(kPatience), std::future_status::ready);
  EXPECT_EQ(sending.wait_for(kPatience), std::future_status::ready);
}

TEST(Connection, BytesThatAreNoFramesEndItWithAnExplanation) {
  auto [here, there] = base::socket_pair();
  const StartedPeer peer(std::move(here));
  const std::string hostile = "noise from a login shell\n" + std::string(wire::kMagic) + std::string(16, '\xFF');
  ASSERT_EQ(::send(there.get(), hostile.data(), hostile.size(), MSG_NOSIGNAL), static_cast<ssize_t>(hostile.size()));
  auto lock = peer->connection->lock();
  EXPECT_TRUE(peer->connection->wait_until(lock, peer->connection.get(), soon(),
                                           [&] { return peer->connection->gone(lock).has_value(); }));
  EXPECT_FALSE(peer->hello);
}

TEST(Connection, AWorkerThatIsAskedForSomethingBeforeHelloEnds) {
  for (const wire::FrameType type : {wire::FrameType::kStatus, wire::FrameType::kExec}) {
    auto [here, there] = base::socket_pair();
    const auto end = WorkerEnd::open(std::move(there), run_task, {kPatience, kPatience});
    const auto header = wire::pack({.type = type, .channel = 1});
    ASSERT_EQ(::send(here.get(), header.data(), header.size(), MSG_NOSIGNAL), static_cast<ssize_t>(header.size()));
    EXPECT_FALSE(end->wait_setup(soon()));
    auto lock = end->connection()->lock();
    EXPECT_TRUE(end->connection()->gone(lock));
    lock.unlock();
    end->stop();
  }
}

TEST(Connection, AWorkerEndsThoughNobodyTakesWhatItHasToSay) {
  auto [here, there] = base::socket_pair();
  const auto [unread, full] = base::make_pipe();
  const int to_fill = full.get();
  base::check("fcntl", [to_fill] { return ::fcntl(to_fill, F_SETFL, O_NONBLOCK); });
  while (::write(full.get(), "much", 4) > 0) {
  }
  base::check("fcntl", [to_fill] { return ::fcntl(to_fill, F_SETFL, 0); });
  const base::Fd stderr_before(::dup(STDERR_FILENO));
  ::dup2(full.get(), STDERR_FILENO);
  const auto end = WorkerEnd::open(std::move(there), run_task, {kPatience, kPatience});
  ASSERT_EQ(::send(here.get(), "half", 4, MSG_NOSIGNAL), 4);  // of a frame
  here.reset();
  EXPECT_FALSE(end->wait_setup(soon()));
  end->stop();
  ::dup2(stderr_before.get(), STDERR_FILENO);
}

// An owner that is let go while its connection calls it, and then ends the connection, as a gateway does.
class Dropped final : public ConnectionOwner {
 public:
  Dropped(std::shared_ptr<Connection> connection, std::shared_ptr<Dropped>& reference)
      : connection_(std::move(connection)), reference_(reference) {}
  ~Dropped() override { connection_->finish("dropped"); }
  Dropped(const Dropped&) = delete;
  Dropped& operator=(const Dropped&) = delete;

  void on_hello(Lock& /*lock*/, base::Buffer) override { reference_.reset(); }
  void on_exec(Lock&, const std::shared_ptr<ChannelState>&, base::Buffer) override { FAIL(); }
  void on_open(Lock&, const std::shared_ptr<ChannelState>&, base::Buffer) override { FAIL(); }
  void on_status_request(Lock&, std::uint32_t) override { FAIL(); }
  void on_terminate(Lock&) override { FAIL(); }
  void on_stream_end(const std::string&) override { reference_.reset(); }

 private:
  const std::shared_ptr<Connection> connection_;
  std::shared_ptr<Dropped>& reference_;  // the only one
};

TEST(Connection, ItsOwnerMayBeLetGoWhileAThreadReads) {
  for (const bool by_hello : {true, false}) {
    auto [here, there] = base::socket_pair();
    const auto loop = std::make_shared<loop::Loop>();
    const auto connection = std::make_shared<Connection>(std::move(here), loop, Side::kCoordinator);
    std::shared_ptr<Dropped> owner;
    owner = std::make_shared<Dropped>(connection, owner);
    connection->start(owner);
    const auto hello = wire::pack({.type = wire::FrameType::kHello});
    const std::string stream = std::string(wire::kMagic).append(hello.data(), by_hello ? hello.size() : 0);
    ASSERT_EQ(::send(there.get(), stream.data(), stream.size(), MSG_NOSIGNAL), static_cast<ssize_t>(stream.size()));
    ::shutdown(there.get(), by_hello ? SHUT_RD : SHUT_WR);
    auto lock = connection->lock();
    EXPECT_TRUE(
        connection->wait_until(lock, connection.get(), soon(), [&] { return connection->gone(lock).has_value(); }));
    lock.unlock();
    EXPECT_FALSE(owner);
    loop->stop();
  }
}

// An owner that learns a little later why the stream has ended, as a gateway does.
class Inquirer final : public ConnectionOwner {
 public:
  explicit Inquirer(const std::shared_ptr<Connection>& connection) : connection_(connection) {}

  void on_hello(Lock& /*lock*/, base::Buffer) override {}
  void on_exec(Lock&, const std::shared_ptr<ChannelState>&, base::Buffer) override { FAIL(); }
  void on_open(Lock&, const std::shared_ptr<ChannelState>&, base::Buffer) override { FAIL(); }
  void on_status_request(Lock&, std::uint32_t) override { FAIL(); }
  void on_terminate(Lock&) override { FAIL(); }
  void on_stream_end(const std::string& error) override {
    errors.push_back(error);
    const auto connection = connection_.lock();
    connection->loop()->call_after(std::chrono::milliseconds(20), [connection] { connection->finish("known now"); });
  }

  std::vector<std::string> errors;

 private:
  const std::weak_ptr<Connection> connection_;
};

TEST(Connection, WhatIsWrongWithAFrameIsToldOnceWhoeverReads) {
  auto [here, there] = base::socket_pair();
  const auto loop = std::make_shared<loop::Loop>();
  const auto connection = std::make_shared<Connection>(std::move(here), loop, Side::kCoordinator);
  const auto owner = std::make_shared<Inquirer>(connection);
  connection->start(owner);
  const auto wrong = wire::pack({.type = wire::FrameType::kExec, .channel = 2});
  const std::string stream = std::string(wire::kMagic).append(wrong.data(), wrong.size());
  auto lock = connection->lock();  // so that this thread is the one who reads
  ASSERT_EQ(::send(there.get(), stream.data(), stream.size(), MSG_NOSIGNAL), static_cast<ssize_t>(stream.size()));
  EXPECT_TRUE(
      connection->wait_until(lock, connection.get(), soon(), [&] { return connection->gone(lock).has_value(); }));
  lock.unlock();
  loop->stop();
  EXPECT_EQ(owner->errors, std::vector<std::string>{"EXEC for channel 2 came from the wrong side"});
}

TEST(Connection, APeerThatIsNoWorkerIsQuoted) {
  auto [here, there] = base::socket_pair();
  const StartedPeer peer(std::move(here));
  ASSERT_EQ(::send(there.get(), "usage: ls", 9, MSG_NOSIGNAL), 9);
  there.reset();
  auto lock = peer->connection->lock();
  EXPECT_TRUE(peer->connection->wait_until(lock, peer->connection.get(), soon(),
                                           [&] { return peer->connection->gone(lock).has_value(); }));
  EXPECT_NE(peer->connection->gone(lock)->find("usage: ls"), std::string::npos) << *peer->connection->gone(lock);
}

TEST(Connection, TheOthersChannelsExistFromTheirFirstFrameAndAreForgottenOnlyOnceKnown) {
  auto [here, there] = base::socket_pair();
  const StartedPeer peer(std::move(here));
  std::string stream(wire::kMagic);
  const auto frame = [&](wire::FrameType type, std::uint32_t channel, std::string_view payload) {
    wire::FrameHeader header;
    header.type = type;
    header.channel = channel;
    header.length = static_cast<std::uint32_t>(payload.size());
    const auto bytes = wire::pack(header);
    stream.append(bytes.data(), bytes.size()).append(payload);
  };
  frame(wire::FrameType::kData, 2, "early");
  frame(wire::FrameType::kClose, 2, "");
  frame(wire::FrameType::kHello, 0, "done");
  ASSERT_EQ(::send(there.get(), stream.data(), stream.size(), MSG_NOSIGNAL), static_cast<ssize_t>(stream.size()));
  auto lock = peer->connection->lock();
  ASSERT_TRUE(
      peer->connection->wait_until(lock, peer->connection.get(), soon(), [&] { return peer->hello.has_value(); }));
  auto channel = peer->connection->channel(lock, 2);  // as when its reference is decoded at last
  lock.unlock();
  EXPECT_EQ(channel->receive(soon()).view(), "early");
  EXPECT_THROW(static_cast<void>(channel->receive(soon())), EndOfChannel);
  channel.reset();
  lock.lock();
  channel = peer->connection->channel(lock, 2);  // a second reference to what is over
  lock.unlock();
  EXPECT_TRUE(channel->isclosed());
  EXPECT_THROW(static_cast<void>(channel->receive(soon())), EndOfChannel);
}

// The far end of a connection with rings: takes out of them what the test says.
class RawEnd {
 public:
  RawEnd(base::Fd socket, Connection& connection) : link_(std::move(socket)) {
    link_.expect_offer();
    {
      auto lock = connection.lock();
      connection.post(lock, wire::FrameType::kHello, 0, testing::coordinator_hello());
    }
    read_some();
    const auto hello = wire::pack({.type = wire::FrameType::kHello});
    const auto rings = wire::pack({.type = wire::FrameType::kRings});
    const std::string said =
        std::string(wire::kMagic) + std::string(hello.data(), hello.size()) + std::string(rings.data(), rings.size());
    const iovec part{const_cast<char*>(said.data()), said.size()};
    EXPECT_EQ(link_.write(std::span(&part, 1)), static_cast<ssize_t>(said.size()));
    while (read_some() != wire::kHeaderSize) {  // RINGS
    }
    link_.read_from_ring();
    link_.write_to_ring();
  }

  // If there is room.
  void write(std::string_view frames) {
    const iovec part{const_cast<char*>(frames.data()), frames.size()};
    static_cast<void>(link_.write_whole(std::span(&part, 1)));
  }
  // How many of `count` bytes come, before none comes for a while.
  std::size_t read(std::size_t count) {
    std::size_t got = 0;
    while (got < count && (link_.readable() || something_comes())) {
      got += link_.read(std::span(space_).first(std::min(space_.size(), count - got))).count;
    }
    return got;
  }

 private:
  std::size_t read_some() { return something_comes() ? link_.read(space_).count : 0; }
  bool something_comes() {
    pollfd fd{link_.fd(), POLLIN, 0};
    return !link_.may_sleep_reading() || ::poll(&fd, 1, 30'000) == 1;
  }

  Link link_;
  std::array<char, 65'536> space_{};
};

class ConnectionToRawEnd : public ::testing::Test {
 protected:
  ConnectionToRawEnd() {
    auto [here, there] = base::socket_pair();
    peer_ = std::make_shared<Peer>(std::move(here));
    peer_->connection->offer_rings();
    peer_->connection->start(peer_);
    far_ = std::make_unique<RawEnd>(std::move(there), *peer_->connection);
  }
  ~ConnectionToRawEnd() override { peer_->stop(); }

  std::shared_ptr<Peer> peer_;
  std::unique_ptr<RawEnd> far_;
};

// Who has the writing may find room without having slept. Then no bell is rung for those that are behind.
TEST_F(ConnectionToRawEnd, WhatIsQueuedBehindAWriterThatLeavesIsWritten) {
  const std::string item(200'000, 'x');
  auto lock = peer_->connection->lock();
  ASSERT_TRUE(
      peer_->connection->wait_until(lock, peer_->connection.get(), soon(), [&] { return peer_->hello.has_value(); }));
  const auto full = peer_->connection->new_channel(lock);
  const auto small = peer_->connection->new_channel(lock);
  const auto behind = peer_->connection->new_channel(lock);
  const auto post = [&](const ChannelHandle& channel, int count) {
    for (int i = 0; i < count; ++i) {
      peer_->connection->post(lock, wire::FrameType::kData, channel.id(), base::Buffer(item));
    }
  };
  post(*full, 6);  // more than the ring holds
  lock.unlock();
  std::atomic<pid_t> thread{0};
  std::thread sender([&] {
    thread = ::gettid();
    EXPECT_NO_THROW(small->send(base::Buffer("small"), soon()));
  });
  while (thread == 0 || !testing::sleeps(thread)) {
    std::this_thread::yield();
  }
  lock.lock();
  post(*behind, 20);
  lock.unlock();
  const std::size_t all = 26 * (item.size() + wire::kHeaderSize) + 5 + wire::kHeaderSize;
  EXPECT_EQ(far_->read(all), all);
  sender.join();
}

TEST_F(ConnectionToRawEnd, AWaitEndsInTimeAndHearsSignalsThoughThereIsAlwaysSomethingToRead) {
  const auto nothing = wire::pack({.type = wire::FrameType::kCredit, .channel = 1});
  std::string frames;
  while (frames.size() < (1 << 16)) {
    frames.append(nothing.data(), nothing.size());
  }
  std::atomic<bool> over{false};
  std::thread writer([&] {
    for (const auto end = soon().deadline; !over && !base::has_passed(end);) {
      far_->write(frames);
    }
  });

  auto lock = peer_->connection->lock();
  const auto ends = base::Clock::now() + std::chrono::milliseconds(200);
  static std::atomic<int> looks;
  looks = 0;
  const base::Wait wait{.deadline = ends, .interrupted = [] { ++looks; }};
  EXPECT_FALSE(peer_->connection->wait_until(lock, peer_.get(), wait, [] { return false; }));
  EXPECT_LT(base::Clock::now(), ends + kPatience / 2);
  EXPECT_GT(looks, 0);
  lock.unlock();
  over = true;
  writer.join();
}

}  // namespace
}  // namespace execnet::core
