// Races, run again and again: channels over channels, callbacks against close, terminate against send. At the
// connection's level both ends are C++ of this process, so that ThreadSanitizer sees both; with a group the other
// end is a real interpreter. Few runs here, 1,000 under ThreadSanitizer in `make soak`.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <execnet/execnet.hpp>
#include <functional>
#include <future>
#include <latch>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/syscall.hpp"
#include "connection/channel_handle.hpp"
#include "connection/value_message.hpp"
#include "gateway/worker_end.hpp"
#include "hello.hpp"
#include "soak.hpp"

namespace execnet {
namespace {

using core::ChannelHandle;
using core::Connection;

constexpr std::chrono::seconds kPatience{60};

base::Wait soon() { return {.deadline = base::Clock::now() + kPatience}; }

// Runs `run(number)` as often as requested and reports how long that took.
void repeat(const std::string& what, std::size_t short_form, const std::function<void(std::size_t)>& run) {
  const std::size_t runs = testing::soak_runs(short_form);
  const testing::MemoryBound memory(std::size_t{4} << 10);
  const auto begin = std::chrono::steady_clock::now();
  for (std::size_t number = 0; number < runs && !::testing::Test::HasFailure(); ++number) {
    run(number);
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::array<char, 64> figures{};
  std::snprintf(figures.data(), figures.size(), "%.1f s, peak memory %zu MB (+%zu)", seconds, memory.peak(),
                memory.growth());
  testing::soak_report(what + ": " + std::to_string(runs) + " runs; " + figures.data());
}

// Runs all functions at the same time, each on a thread of its own, and waits for them.
void at_once(const std::vector<std::function<void()>>& functions) {
  std::latch start(static_cast<std::ptrdiff_t>(functions.size()));
  std::vector<std::thread> threads;
  threads.reserve(functions.size());
  for (const auto& function : functions) {
    threads.emplace_back([&] {
      start.arrive_and_wait();
      function();
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

// --- Both ends in this process ---

Value receive_value(ChannelHandle& channel) {
  const base::Buffer item = channel.receive(soon());
  return core::decode_value(item.view(), &channel.connection(), channel.strings());
}

void send_value(ChannelHandle& channel, const Value& value) {
  channel.send(core::encode_value(value, &channel.connection()), soon());
}

std::shared_ptr<ChannelHandle> new_channel(Connection& connection) {
  auto lock = connection.lock();
  return connection.new_channel(lock);
}

// What the worker runs: "reply" answers over the channels it gets, "flood" sends until it is told to end.
std::optional<std::string> run_task(const core::WorkerEnd::Task& task) {
  ChannelHandle& channel = *task.channel;
  try {
    if (task.payload.view() == "reply") {
      for (;;) {
        const Value item = receive_value(channel);
        const auto theirs = item["over"].as<ChannelRef>();
        const auto ours = new_channel(channel.connection());
        send_value(*theirs, Value(Dict{{"number", item["number"]}, {"back over", Value(ChannelRef(ours))}}));
        send_value(*theirs, receive_value(*ours));
        ours->close(std::nullopt);
      }
    }
    for (std::int64_t number = 0; task.payload.view() == "flood" && !channel.no_more_items(); ++number) {
      send_value(channel, Value(number));
    }
    if (task.payload.view() == "sink") {
      for (;;) {
        static_cast<void>(channel.receive(soon()));
      }
    }
  } catch (const TimeoutError& error) {
    return error.what();
  } catch (const Error&) {
    // The channel or the gateway has ended.
  }
  return std::nullopt;
}

class Coordinator final : public core::ConnectionOwner, public std::enable_shared_from_this<Coordinator> {
 public:
  explicit Coordinator(base::Fd stream)
      : loop(std::make_shared<loop::Loop>()),
        connection(std::make_shared<Connection>(std::move(stream), loop, core::Side::kCoordinator)) {}

  void on_hello(Lock& /*lock*/, base::Buffer) override { served.set_value(); }
  void on_exec(Lock&, const std::shared_ptr<core::ChannelState>&, base::Buffer) override { FAIL(); }
  void on_open(Lock&, const std::shared_ptr<core::ChannelState>&, base::Buffer) override { FAIL(); }
  void on_status_request(Lock&, std::uint32_t) override { FAIL(); }
  void on_terminate(Lock&) override { FAIL(); }
  void on_stream_end(const std::string& error) override { connection->finish("the stream ended: " + error); }

  const std::shared_ptr<loop::Loop> loop;
  const std::shared_ptr<Connection> connection;
  std::promise<void> served;  // the worker has said HELLO; anything before that is noise
};

// A connection with a worker's end on a thread of its own.
class Pair {
 public:
  Pair() {
    auto [here, there] = base::socket_pair();
    coordinator_ = std::make_shared<Coordinator>(std::move(here));
    coordinator_->connection->start(coordinator_);
    worker_ = std::thread([stream = std::move(there)]() mutable {
      const auto end = core::WorkerEnd::open(std::move(stream), run_task, {kPatience, kPatience});
      EXPECT_TRUE(end->wait_setup(soon()));
      end->say_hello({{3, 11, 7, "final", 0}, "c++", "test", "/"});
      end->serve(soon());
      end->stop();
    });
    auto lock = coordinator_->connection->lock();
    coordinator_->connection->post(lock, wire::FrameType::kHello, 0, testing::coordinator_hello());
    lock.unlock();
    EXPECT_EQ(coordinator_->served.get_future().wait_for(kPatience), std::future_status::ready);
  }
  ~Pair() {
    terminate();
    worker_.join();
    coordinator_->loop->stop();
    coordinator_->connection->finish("test over");
    coordinator_->connection->dispatcher().join({.deadline = base::Clock::now() + kPatience});
  }
  Pair(const Pair&) = delete;
  Pair& operator=(const Pair&) = delete;

  [[nodiscard]] Connection& connection() const { return *coordinator_->connection; }
  [[nodiscard]] std::shared_ptr<ChannelHandle> exec(std::string_view what) const {
    auto lock = connection().lock();
    auto channel = connection().new_channel(lock);
    connection().send(lock, wire::FrameType::kExec, channel->id(), base::Buffer(what), soon());
    return channel;
  }
  void terminate() const {
    auto lock = connection().lock();
    connection().post(lock, wire::FrameType::kTerminate, 0);
  }

 private:
  std::shared_ptr<Coordinator> coordinator_;
  std::thread worker_;
};

// Counts the items it is called with, and calls after the end.
class Counting final : public core::Callback {
 public:
  std::optional<std::string> on_item(base::Buffer payload, StringConfig) override {
    EXPECT_EQ(ended_, 0) << "an item after the end";
    EXPECT_EQ(core::decode_value(payload.view()).as<std::int64_t>(), items_++) << "out of order";
    if (items_ == 1) {
      first_.set_value();
    }
    return std::nullopt;
  }
  void on_end() override {
    if (ended_++ == 0) {
      end_.set_value();
    }
  }
  void wait_first() { EXPECT_EQ(first_.get_future().wait_for(kPatience), std::future_status::ready); }
  void wait_end() { EXPECT_EQ(end_.get_future().wait_for(kPatience), std::future_status::ready); }

 private:
  std::int64_t items_ = 0;  // these two belong to the dispatcher thread
  int ended_ = 0;
  std::promise<void> first_;
  std::promise<void> end_;
};

TEST(Soak, ChannelsOverChannelsOfAConnection) {
  std::optional<Pair> pair;
  repeat("channel over channel, connection", 30, [&](std::size_t number) {
    if (number % 50 == 0) {
      pair.emplace();
    }
    const auto talk = [&] {
      const auto outer = pair->exec("reply");
      for (int i = 0; i < 3; ++i) {
        const auto inner = new_channel(pair->connection());
        send_value(*outer, Value(Dict{{"number", i}, {"over", Value(ChannelRef(inner))}}));
        const Value answer = receive_value(*inner);
        EXPECT_EQ(answer["number"].as<int>(), i);
        const auto back = answer["back over"].as<ChannelRef>();
        send_value(*back, Value("round"));
        EXPECT_EQ(receive_value(*inner).as<std::string>(), "round");
        back->waitclose(soon());
      }
    };
    at_once({talk, talk, talk});
    auto lock = pair->connection().lock();
    EXPECT_EQ(pair->connection().open_channels(lock), 0U);
  });
}

TEST(Soak, CallbacksAgainstCloseOfAConnection) {
  std::optional<Pair> pair;
  repeat("callback against close, connection", 30, [&](std::size_t number) {
    if (number % 50 == 0) {
      pair.emplace();
    }
    const auto counting = std::make_shared<Counting>();
    auto channel = pair->exec("flood");
    at_once({[&] { channel->set_callback(counting); },
             [&] {
               if (number % 2 == 0) {
                 counting->wait_first();
               }
               channel->close(std::nullopt);
             },
             [&] {
               try {
                 send_value(*channel, Value("to nobody"));
               } catch (const ChannelClosed&) {
               }
             }});
    channel->waitclose(soon());
    channel.reset();
    counting->wait_end();
  });
}

TEST(Soak, TerminateAgainstSendOfAConnection) {
  repeat("terminate against send, connection", 30, [](std::size_t number) {
    const Pair pair;
    const auto flood = pair.exec("flood");
    const auto sink = pair.exec("sink");
    const auto send = [&] {
      try {
        for (;;) {
          sink->send(base::Buffer(std::string(number % 3 == 0 ? 400'000 : 100, 'x')), soon());
        }
      } catch (const GatewayGone&) {
      } catch (const ChannelClosed&) {
      }
    };
    const auto receive = [&] {
      try {
        for (;;) {
          static_cast<void>(flood->receive(soon()));
        }
      } catch (const GatewayGone&) {
      } catch (const EndOfChannel&) {
      }
    };
    at_once({send, send, receive, [&] {
               if (number % 2 == 0) {
                 pair.terminate();
               } else {
                 pair.connection().shut_down();
               }
             }});
  });
}

// --- Real interpreters ---

TEST(Soak, ChannelsOverChannelsOfAGateway) {
  Group group;
  repeat("channel over channel, gateway", 10, [&](std::size_t number) {
    if (number % 100 == 0) {
      group.terminate(kPatience);
      group.makegateway();
    }
    const auto talk = [&] {
      const Channel outer = group[0].remote_exec(dedent(R"(
          for item in channel:
              back = channel.gateway.newchannel()
              item["over"].send({"number": item["number"], "back over": back})
              item["over"].send(back.receive())
              back.close()
          )"));
      for (int i = 0; i < 3; ++i) {
        const Channel inner = group[0].newchannel();
        outer.send(Dict{{"number", i}, {"over", inner}});
        const Value answer = inner.receive(kPatience);
        EXPECT_EQ(answer["number"].as<int>(), i);
        const auto back = answer["back over"].as<Channel>();
        back.send("round");
        EXPECT_EQ(inner.receive<std::string>(kPatience), "round");
        back.waitclose(kPatience);
      }
      outer.close();
    };
    at_once({talk, talk, talk});
  });
}

TEST(Soak, CallbacksAgainstCloseOfAGateway) {
  Group group;
  repeat("callback against close, gateway", 10, [&](std::size_t number) {
    if (number % 100 == 0) {
      group.terminate(kPatience);
      group.makegateway();
    }
    std::promise<void> first;
    std::promise<void> end;
    std::atomic<std::int64_t> items = 0;
    Channel channel = group[0].remote_exec(dedent(R"(
        import itertools
        for number in itertools.count():
            if channel.isclosed():
                break
            try:
                channel.send(number)
            except (EOFError, IOError):
                break
        )"));
    at_once({[&] {
               channel.setcallback(
                   [&](const Value& item) {
                     EXPECT_EQ(item.as<std::int64_t>(), items.load());
                     if (items++ == 0) {
                       first.set_value();
                     }
                   },
                   [&] { end.set_value(); });
             },
             [&] {
               if (number % 2 == 0) {
                 EXPECT_EQ(first.get_future().wait_for(kPatience), std::future_status::ready);
               }
               channel.close();
             }});
    EXPECT_EQ(end.get_future().wait_for(kPatience), std::future_status::ready);
  });
}

TEST(Soak, TerminateAgainstSendOfAGateway) {
  repeat("terminate against send, gateway", 3, [](std::size_t number) {
    Group group{"popen"};
    const Channel sink = group[0].remote_exec("for item in channel: pass");
    const Channel flood = group[0].remote_exec("while True: channel.send(1)");
    const auto send = [&] {
      try {
        for (;;) {
          sink.send(Bytes(std::string(number % 3 == 0 ? 400'000 : 100, 'x')));
        }
      } catch (const GatewayGone&) {
      } catch (const ChannelClosed&) {
      }
    };
    const auto receive = [&] {
      try {
        for (;;) {
          static_cast<void>(flood.receive(kPatience));
        }
      } catch (const GatewayGone&) {
      } catch (const EndOfChannel&) {
      }
    };
    // Nothing tells the code to stop in time, or at all. It is killed while it sends.
    at_once({send, send, receive, [&] { group.terminate(std::chrono::milliseconds(number % 2 == 0 ? 0 : 20)); }});
    EXPECT_EQ(group.size(), 0U);
  });
}

// All that ends a group, by several threads at once, with callbacks that run meanwhile.
TEST(Soak, SeveralThreadsEndOneGroup) {
  repeat("several threads end one group", 5, [](std::size_t number) {
    Group group{"popen"};
    const Gateway gateway = group[0];
    const Channel channel = gateway.remote_exec(number % 2 == 0 ? "channel.receive()" : "while True: channel.send(1)");
    std::promise<void> end;
    channel.setcallback([](const Value&) {}, [&] { end.set_value(); });
    const auto terminate = [&] { group.terminate(number % 3 == 0 ? Seconds(0.1) : kPatience); };
    at_once({terminate, terminate, [&] { gateway.exit(); }, [&] { gateway.join(kPatience); }});
    EXPECT_EQ(end.get_future().wait_for(kPatience), std::future_status::ready);
    EXPECT_EQ(group.size(), 0U);
    group.terminate(kPatience);
  });
}

TEST(Soak, AGroupIsDestroyedWhileAThreadTerminatesIt) {
  repeat("destruction against terminate", 3, [](std::size_t /*number*/) {
    auto group = std::make_unique<Group>(std::vector<XSpec>{"popen"});
    std::promise<void> ending;
    std::promise<void> destroying;
    const Channel channel = (*group)[0].remote_exec("channel.receive()");  // it would end if nobody could send to it
    channel.setcallback([](const Value&) {},
                        [&] {
                          ending.set_value();  // the other thread is in terminate() now
                          destroying.get_future().wait_for(kPatience);
                        });
    std::thread other([&] { group->terminate(kPatience); });
    EXPECT_EQ(ending.get_future().wait_for(kPatience), std::future_status::ready);
    std::thread releases([&] { destroying.set_value(); });
    group.reset();
    other.join();
    releases.join();
  });
}

TEST(Soak, CallbacksTerminateEachOthersGroups) {
  repeat("callbacks that terminate", 3, [](std::size_t /*number*/) {
    std::array<Group, 2> groups;
    const auto over = std::make_shared<std::array<std::promise<void>, 2>>();
    std::latch both(2);
    for (std::size_t i = 0; i < 2; ++i) {
      groups.at(i).makegateway();
      groups.at(i)[0].remote_exec("channel.send(1)").setcallback([&, i, over](const Value&) {
        both.arrive_and_wait();
        groups.at(1 - i).terminate(kPatience);
        groups.at(i).terminate(kPatience);
        over->at(i).set_value();
      });
    }
    for (auto& one : *over) {
      EXPECT_EQ(one.get_future().wait_for(kPatience / 2), std::future_status::ready);
    }
  });
}

}  // namespace
}  // namespace execnet
