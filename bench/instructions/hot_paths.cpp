// The hot paths of the core, the same at each run: count.py runs this under callgrind.
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include <execnet/channel.hpp>
#include <execnet/dump.hpp>

#include "base/syscall.hpp"
#include "connection/channel_handle.hpp"
#include "connection/connection.hpp"
#include "counting.hpp"
#include "loop/loop.hpp"
#include "values.hpp"
#include "wire/frame.hpp"

namespace execnet {
namespace {

constexpr int kMessages = 100;  // as many as fit into a socket
constexpr int kRounds = 10;     // enough that it hardly matters in which of them the allocator tidies up

void check(bool condition, const char* what) {
  if (!condition) {
    throw std::runtime_error(what);
  }
}

// Leaves out costs that come only once, such as the first use of a symbol.
void count(const std::string& name, const std::function<void()>& path) {
  path();
  begin_counting();
  path();
  end_counting(name.c_str());
}

void count_value(const std::string& name, const Value& value) {
  const std::string bytes = dumps(value);
  check(loads(bytes) == value, "a value is not what it was");
  count("encode " + name, [&] { static_cast<void>(dumps(value)); });
  count("decode " + name, [&] { static_cast<void>(loads(bytes)); });
}

// A coordinator's and a worker's connection with a channel between them. The loop is stopped, so that one thread does
// everything: what one side has sent is there when the other looks, and nothing depends on time.
class Ends {
 public:
  explicit Ends(bool rings) : Ends(rings, base::socket_pair()) {}

  [[nodiscard]] const Channel& coordinator() const { return coordinator_channel_; }
  [[nodiscard]] const Channel& worker() const { return worker_channel_; }

 private:
  Ends(bool rings, std::pair<base::Fd, base::Fd> sockets)
      : loop_(stopped_loop()),
        coordinator_(make(std::move(sockets.first), core::Side::kCoordinator)),
        worker_(make(std::move(sockets.second), core::Side::kWorker)),
        coordinator_channel_(new_channel()),
        worker_channel_(channel_of_worker()) {
    if (rings) {
      coordinator_->offer_rings();
      worker_->expect_rings();
    }
    coordinator_->start({});
    worker_->start({});
    {
      auto lock = worker_->lock();
      worker_->post_raw(lock, base::Buffer(wire::kMagic));
    }
    pass();
    if (rings) {
      check(coordinator_->has_rings() && worker_->has_rings(), "there are no rings");
      auto lock = coordinator_->lock();
      coordinator_->agree_on_rings(lock);
      coordinator_->use_rings(lock);
    }
    pass();
  }

  static std::shared_ptr<loop::Loop> stopped_loop() {
    auto loop = std::make_shared<loop::Loop>();
    loop->stop();
    return loop;
  }
  std::shared_ptr<core::Connection> make(base::Fd socket, core::Side side) {
    return std::make_shared<core::Connection>(std::move(socket), loop_, side);
  }
  Channel new_channel() {
    auto lock = coordinator_->lock();
    return Channel(coordinator_->new_channel(lock));
  }
  Channel channel_of_worker() {
    auto lock = worker_->lock();
    return Channel(worker_->channel(lock, coordinator_channel_.id()));
  }
  void pass() {
    coordinator_channel_.send("there");
    check(worker_channel_.receive<std::string>() == "there", "something else came");
    worker_channel_.send("and back");
    check(coordinator_channel_.receive<std::string>() == "and back", "something else came back");
  }

  const std::shared_ptr<loop::Loop> loop_;
  const std::shared_ptr<core::Connection> coordinator_;
  const std::shared_ptr<core::Connection> worker_;
  const Channel coordinator_channel_;
  const Channel worker_channel_;
};

void count_messages(const std::string& how, bool rings) {
  const Ends ends(rings);
  const auto send = [&] {
    for (int i = 0; i < kMessages; ++i) {
      ends.coordinator().send(i);
    }
  };
  const auto receive = [&] {
    for (int i = 0; i < kMessages; ++i) {
      check(ends.worker().receive<int>() == i, "another message was due");
    }
  };
  send();
  receive();
  for (int i = 0; i < kRounds; ++i) {
    begin_counting();
    send();
    end_counting(("send 1,000 ints, " + how).c_str());
    begin_counting();
    receive();
    end_counting(("receive 1,000 ints, " + how).c_str());
  }
  count("echo of an int, 1,000 times, " + how, [&] {
    for (int i = 0; i < kRounds * kMessages; ++i) {
      ends.coordinator().send(i);
      ends.worker().send(ends.worker().receive());
      check(ends.coordinator().receive<int>() == i, "another message was due");
    }
  });
}

}  // namespace
}  // namespace execnet

int main() {
  using namespace execnet;
  std::cout << tool_chain() << '\n';
  count_value("10,000 ints", bench::ints(10'000));
  count_value("a nested report", bench::report(500));
  count_messages("socket", false);
  count_messages("rings", true);
}
