// Groups whose members do not end, through the public headers: the bounds of Group::terminate.
#include "gateway/ending.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <execnet/execnet.hpp>
#include <thread>
#include <vector>

#include "process/pidfd.hpp"

namespace execnet {
namespace {

using namespace std::chrono_literals;
using base::Clock;

// How long `what` takes, less what threads that only sleep, one on each processor, are late meanwhile: what the machine
// has not given us.
Clock::duration punctual_time_of(const std::function<void()>& what) {
  std::atomic<bool> over = false;
  std::atomic<Clock::duration> late{};
  cpu_set_t processors;
  ::sched_getaffinity(0, sizeof processors, &processors);
  std::vector<std::thread> sleepers;
  for (std::size_t processor = 0; processor < CPU_SETSIZE; ++processor) {
    if (CPU_ISSET(processor, &processors)) {
      sleepers.emplace_back([&, processor] {
        cpu_set_t only;
        CPU_ZERO(&only);
        CPU_SET(processor, &only);
        ::sched_setaffinity(0, sizeof only, &only);  // of this thread
        Clock::duration mine{};
        while (!over) {
          const auto due = Clock::now() + 10ms;
          std::this_thread::sleep_until(due);
          mine += std::max<Clock::duration>(Clock::now() - due - 1ms, 0ms);
        }
        auto so_far = late.load();
        while (!late.compare_exchange_weak(so_far, so_far + mine)) {
        }
      });
    }
  }
  const auto begin = Clock::now();
  what();
  const auto taken = Clock::now() - begin;
  over = true;
  for (std::thread& sleeper : sleepers) {
    sleeper.join();
  }
  return taken - late.load();
}

class Ending : public testing::TestWithParam<std::chrono::milliseconds> {
 protected:
  // Terminates, and checks that it was in time and that the process is gone.
  void terminate(pid_t pid) {
    const base::Fd end = process::pidfd_open(pid);
    EXPECT_LT(punctual_time_of([&] { group_.terminate(GetParam()); }), GetParam() + core::kEndsLate);
    pollfd gone{end.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&gone, 1, 30'000), 1);
    EXPECT_EQ(group_.size(), 0U);
  }

  Group group_;
};

constexpr const char* kDeaf = R"(
import os, signal
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
channel.send(os.getpid())
while True:
    signal.pause()
)";

TEST_P(Ending, OfOneThatIgnoresEverythingIsInTime) {
  Gateway gateway = group_.makegateway();
  terminate(gateway.remote_exec(kDeaf).receive<pid_t>(20s));
}

TEST_P(Ending, OfOneThatIsStoppedIsInTime) {
  const auto pid = static_cast<pid_t>(group_.makegateway().rinfo().pid);
  ::kill(pid, SIGSTOP);
  terminate(pid);
}

TEST_P(Ending, OfOneThatIsStoppedBehindAProxyIsInTime) {
  group_.makegateway("popen//id=proxy");
  const auto pid = static_cast<pid_t>(group_.makegateway("popen//via=proxy").rinfo().pid);
  ::kill(pid, SIGSTOP);
  terminate(pid);
}

TEST_P(Ending, OfAStoppedProxyTakesWhatGoesThroughItAlong) {
  group_.makegateway("popen//id=proxy");
  const auto pid = static_cast<pid_t>(group_.makegateway("popen//via=proxy").rinfo().pid);
  ::kill(static_cast<pid_t>(group_["proxy"].rinfo().pid), SIGSTOP);
  terminate(pid);
}

TEST_P(Ending, IsNotHeldUpByAMessageThatNobodyReads) {
  Gateway gateway = group_.makegateway();
  const auto pid = static_cast<pid_t>(gateway.rinfo().pid);
  const Channel channel = gateway.newchannel();
  ::kill(pid, SIGSTOP);
  std::string told;
  std::thread sender([&] {
    try {
      channel.send(Bytes(std::string(std::size_t{64} << 20, 'x')));
    } catch (const Error& error) {
      told = error.what();
    }
  });
  terminate(pid);
  sender.join();
  EXPECT_NE(told.find("gw0"), std::string::npos) << told;
}

// Code that ends well when it is asked to has most of the time to do it.
TEST(EndingInOrder, LeavesTimeToFinish) {
  Group group{"popen"};
  const std::string file = testing::TempDir() + "execnet-ending-" + std::to_string(::getpid());
  const Channel channel = group[0].remote_exec(
      "import time\nfile = channel.receive()\nchannel.send(1)\ntry:\n    channel.receive()\nexcept EOFError:\n    "
      "pass\n"
      "time.sleep(0.5)\nopen(file, 'w').close()");
  channel.send(file);
  EXPECT_EQ(channel.receive<int>(20s), 1);
  const auto begin = Clock::now();
  group.terminate(20s);
  EXPECT_GE(Clock::now() - begin, 500ms);
  EXPECT_EQ(::unlink(file.c_str()), 0);
}

INSTANTIATE_TEST_SUITE_P(Timeouts, Ending, testing::Values(0ms, 100ms, 1000ms),
                         [](const auto& one) { return std::to_string(one.param.count()) + "ms"; });

}  // namespace
}  // namespace execnet
