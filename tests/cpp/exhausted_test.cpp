// A C++ program that has no more descriptors, threads or memory: who asked is told, and it works when there is enough
// again. The workers are real interpreters. tests/faults/test_exhausted.py walks each call that can fail.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <exception>
#include <execnet/execnet.hpp>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <new>
#include <string>
#include <system_error>

#include "resource_limits.hpp"
#include "soak.hpp"

namespace execnet {
namespace {

constexpr Seconds kPatience{30.0};
constexpr const char* kEcho = "channel.send(channel.receive())";

void echo(const Gateway& gateway) {
  const Channel channel = gateway.remote_exec(kEcho);
  channel.send(41);
  EXPECT_EQ(channel.receive<int>(kPatience), 41);
  channel.waitclose(kPatience);
}

// If it fails without descriptors, it says that it is for want of them. Whether it has.
bool fails_without_descriptors(const std::function<void()>& what) {
  const testing::NoDescriptors none;
  try {
    what();
    return false;
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code().value(), EMFILE) << error.what();
    EXPECT_NE(std::string(error.what()).find("ulimit -n"), std::string::npos) << error.what();
    return true;
  }
}

// And succeeds with them.
void expect_to_need_descriptors(const std::function<void()>& what) {
  EXPECT_TRUE(fails_without_descriptors(what));
  what();
}

TEST(WithoutDescriptors, ACallbackIsRefusedAndTheChannelIsAsBefore) {
  Group group{"popen"};
  const Channel channel = group[0].remote_exec("for item in channel: channel.send(item + 1)");
  std::promise<int> got;
  expect_to_need_descriptors([&] { channel.setcallback([&](const Value& item) { got.set_value(item.as<int>()); }); });
  channel.send(41);
  auto future = got.get_future();
  ASSERT_EQ(future.wait_for(kPatience), std::future_status::ready);
  EXPECT_EQ(future.get(), 42);
}

TEST(WithoutDescriptors, WhatHasArrivedStaysForReceiveWhenACallbackIsRefused) {
  Group group{"popen"};
  const Channel channel = group[0].remote_exec("channel.send(41); channel.send(42)");
  channel.waitclose(kPatience);
  {
    const testing::NoDescriptors none;
    EXPECT_THROW(channel.setcallback([](const Value&) {}), std::system_error);
    EXPECT_EQ(channel.receive<int>(), 41);
  }
  EXPECT_EQ(channel.receive<int>(), 42);
}

TEST(WithoutDescriptors, AReceiveQueueIsRefused) {
  Group group{"popen"};
  const MultiChannel channels = group.remote_exec("channel.receive(); channel.send(41)");
  expect_to_need_descriptors([&] {
    const auto queue = channels.make_receive_queue();
    channels.send_each(0);
    EXPECT_EQ(queue.get(kPatience).value->as<int>(), 41);
  });
}

// A soft limit may be raised for it.
TEST(WithoutDescriptors, AGatewayIsMadeOrSaysWhatItLacks) {
  for (const char* spec : {"popen", "popen//via=proxy"}) {
    Group group{"popen//id=proxy"};
    const auto make = [&] { echo(group.makegateway(spec)); };
    static_cast<void>(fails_without_descriptors(make));
    make();
  }
}

TEST(WithoutDescriptors, AnRSyncSaysWhatItLacks) {
  std::string pattern = std::filesystem::temp_directory_path() / "execnet-exhausted-XXXXXX";
  const std::filesystem::path directory = ::mkdtemp(pattern.data());
  std::filesystem::create_directory(directory / "source");
  std::ofstream(directory / "source" / "file") << "here";
  Group group{"popen"};
  const auto send = [&] {
    RSync sync(directory / "source");
    sync.add_target(group[0], directory / "target");
    sync.send();
  };
  {
    const testing::NoDescriptors none;
    try {
      send();
      ADD_FAILURE() << "it needs none";
    } catch (const std::exception& error) {
      EXPECT_NE(std::string(error.what()).find("Too many open files"), std::string::npos) << error.what();
    }
  }
  send();
  EXPECT_TRUE(std::filesystem::exists(directory / "target" / "file"));
  std::filesystem::remove_all(directory);
}

TEST(WithoutDescriptors, WhatNeedsNoneGoesOn) {
  Group group{"popen"};
  echo(group[0]);
  const testing::NoDescriptors none;
  echo(group[0]);
  EXPECT_EQ(group[0].remote_status().at("numexecuting").as<int>(), 0);
  group.terminate(Seconds(5.0));
  EXPECT_EQ(group.size(), 0U);
}

TEST(WithoutDescriptors, AThreadThatWaitsForTheFirstTimeIsTold) {
  Group group{"popen"};
  const Channel channel = group[0].remote_exec(kEcho);
  const testing::NoDescriptors none;
  auto waiting = std::async(std::launch::async, [&] { return channel.receive<int>(kPatience); });
  EXPECT_THROW(waiting.get(), std::system_error);
  channel.send(41);
  EXPECT_EQ(channel.receive<int>(kPatience), 41);
}

// --- Memory ---

constexpr std::size_t kLong = std::size_t{256} << 20;
const std::string kLongItem = "channel.send(b'x' * " + std::to_string(kLong) + "); channel.receive()";

TEST(WithoutMemory, AnItemTakesItsSizeAndNotManyTimesThat) {
  Group group{"popen"};
  const testing::MemoryBound bound(kLong / (1 << 20) * 3 / 2);
  const Channel channel = group[0].remote_exec(kLongItem);
  EXPECT_EQ(channel.receive_bytes(kPatience).bytes.size(), kLong);
  channel.send(0);
  channel.waitclose(kPatience);
}

TEST(WithoutMemory, AnItemThatIsTooLargeEndsItsGatewayAndNoOther) {
  if (testing::is_sanitized()) {
    GTEST_SKIP() << "a sanitizer ends the program when there is no memory";
  }
  Group group{"popen", "popen"};
  echo(group[1]);
  {
    const testing::MemoryBound bound(kLong / (1 << 20) / 2);
    const Channel channel = group[0].remote_exec(kLongItem);
    try {
      static_cast<void>(channel.receive_bytes(kPatience));
      ADD_FAILURE() << "there is room for it";
    } catch (const GatewayGone& error) {
      EXPECT_NE(std::string(error.what()).find("there is no memory for"), std::string::npos) << error.what();
    }
    echo(group[1]);
  }
  EXPECT_FALSE(group[0].hasreceiver());
}

}  // namespace
}  // namespace execnet
