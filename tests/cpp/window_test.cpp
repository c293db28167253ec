// Windows as a C++ program sees them: the public API, and a sender at full speed against a slow reader, in figures.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <execnet/execnet.hpp>
#include <filesystem>
#include <fstream>
#include <future>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "soak.hpp"

namespace execnet {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr double kMostMegabytes = 32;    // resident, more than when idle, on either side
constexpr double kMostMilliseconds = 5;  // for a round trip on another channel

double resident_megabytes(std::int64_t pid) {
  std::ifstream statm("/proc/" + std::to_string(pid) + "/statm");
  double pages = 0;
  statm >> pages >> pages;
  return pages * static_cast<double>(::sysconf(_SC_PAGESIZE)) / (1 << 20);
}

// How long, in all, threads of both processes have been ready to run while the kernel ran others.
double milliseconds_without_a_processor(const std::array<std::int64_t, 2>& pids) {
  double milliseconds = 0;
  for (const std::int64_t pid : pids) {
    std::error_code gone;  // A thread may have ended.
    for (const auto& thread : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", gone)) {
      std::ifstream schedstat(thread.path() / "schedstat");
      double run = 0;
      double waited = 0;
      if (schedstat >> run >> waited) {
        milliseconds += waited / 1e6;
      }
    }
  }
  return milliseconds;
}

TEST(Windows, ASendWaitsForRoomAndGivesUpInTime) {
  Group group{"popen//window=1M"};
  const Channel door = group[0].newchannel();
  const Channel channel =
      group[0].remote_exec("channel.receive().receive(); channel.send(len(channel.receive()))\nchannel.receive()");
  EXPECT_EQ(channel.window(), 1U << 20);
  channel.send(Value(door.ref()));
  channel.set_window(1000);
  EXPECT_EQ(channel.window(), 1000U);
  channel.send(std::string(900, 'x'), 30s);
  EXPECT_EQ(channel.outstanding(), 912U);  // with the 6 of `door`, less than an eighth
  EXPECT_THROW(channel.send(std::string(200, 'y'), 10ms), TimeoutError);
  EXPECT_EQ(channel.outstanding(), 912U);
  auto late = std::async(std::launch::async, [&] { channel.send(std::string(300, 'y'), 30s); });
  door.send(Value());
  late.get();
  EXPECT_EQ(channel.receive<int>(30s), 900);
}

TEST(Windows, NoneLiftsAWindowAndZeroIsNone) {
  Group group{"popen//window=1M"};
  const Channel channel = group[0].newchannel();
  EXPECT_THROW(channel.set_window(0), SpecError);
  channel.set_window(std::nullopt);
  EXPECT_EQ(channel.window(), std::nullopt);
  EXPECT_EQ(channel.outstanding(), std::nullopt);
}

TEST(Windows, ASizeThatIsNoneIsRefusedBeforeAnythingIsStarted) {
  EXPECT_THROW(Group({"popen//window=8MB"}), SpecError);
}

TEST(Windows, ASenderThereIsSeen) {
  Group group{"popen//window=1M"};
  const Channel channel = group[0].remote_exec("for i in range(50): channel.send(b'x' * 100000)");
  const auto status = [&] { return group[0].remote_status(30s); };
  while (status().at("numblocked").as<int>() == 0) {
  }
  EXPECT_GT(status().at("outstanding").as<int>(), 1 << 19);
  EXPECT_LE(status().at("outstanding").as<int>(), 1 << 20);
  int count = 0;
  for (const Value& item : channel) {
    count += item.as<Bytes>().size() == 100'000 ? 1 : 0;
  }
  EXPECT_EQ(count, 50);
}

// In both directions at the same time, each with a channel of its own. The long form checks each single round trip,
// less the time for which threads were ready but had no processor: now and then the kernel makes one wait for a time
// slice of others (3 to 5 ms), with or without slow readers. The short form runs beside other tests, where single
// times mean nothing.
TEST(Windows, ASlowReaderCostsNeitherMemoryNorTheTimeOfOthers) {
  constexpr std::size_t kShort = 3;
  const std::chrono::seconds length(testing::soak_seconds(kShort));
  Group group{"popen//window=8M"};
  const Channel echo = group[0].remote_exec("for item in channel: channel.send(item)");
  const std::string item(100'000, 'x');
  for (int i = 0; i < 100; ++i) {
    echo.send(item);
    static_cast<void>(echo.receive(30s));
  }
  const std::array pids{static_cast<std::int64_t>(::getpid()), group[0].rinfo().pid};
  const std::array idle{resident_megabytes(pids[0]), resident_megabytes(pids[1])};

  const Channel there = group[0].remote_exec("import time\nfor item in channel: time.sleep(1)");
  const Channel here = group[0].remote_exec("while True: channel.send(b'x' * 100000)");
  std::atomic<bool> over = false;
  std::thread sender([&] {
    try {
      while (true) {
        there.send(item);
      }
    } catch (const ChannelClosed&) {  // by the test
    }
  });
  std::thread reader([&] {
    while (!over) {
      static_cast<void>(here.receive(30s));
      std::this_thread::sleep_for(1s);
    }
  });
  std::vector<double> trips;
  std::vector<double> ours;  // the same, where long less the time without a processor
  std::array most{0.0, 0.0};
  for (const auto begin = Clock::now(); Clock::now() - begin < length; std::this_thread::sleep_for(1ms)) {
    const double waited = milliseconds_without_a_processor(pids);
    const auto start = Clock::now();
    echo.send(1);
    static_cast<void>(echo.receive(30s));
    trips.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    ours.push_back(trips.back());
    if (trips.back() >= kMostMilliseconds) {
      ours.back() -= milliseconds_without_a_processor(pids) - waited;
    }
    if (trips.size() % 50 == 0) {
      for (std::size_t side = 0; side < pids.size(); ++side) {
        most.at(side) = std::max(most.at(side), resident_megabytes(pids.at(side)) - idle.at(side));
      }
    }
  }
  EXPECT_EQ(group[0].remote_status(30s).at("numblocked").as<int>(), 1);
  EXPECT_GT(there.outstanding(), 1U << 22);
  EXPECT_LE(there.outstanding(), 1U << 23);
  over = true;
  there.close();
  here.close();
  sender.join();
  reader.join();

  std::sort(trips.begin(), trips.end());
  std::sort(ours.begin(), ours.end());
  const double median = trips.at(trips.size() / 2);
  std::array<char, 200> text{};
  std::snprintf(text.data(), text.size(),
                "window=8M, C++ and pure: %ld s; coordinator +%.1f MB, worker +%.1f MB; %zu round trips beside it, "
                "median %.2f ms, worst %.2f ms",
                static_cast<long>(length.count()), most[0], most[1], trips.size(), median, trips.back());
  testing::soak_report(text.data());
  if (!testing::is_sanitized()) {
    EXPECT_LT(std::max(most[0], most[1]), kMostMegabytes);
    EXPECT_LT(ours.at(ours.size() / 2), kMostMilliseconds);
    if (length > std::chrono::seconds(kShort)) {
      EXPECT_LT(ours.back(), kMostMilliseconds);
    }
  }
}

}  // namespace
}  // namespace execnet
