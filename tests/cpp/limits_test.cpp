// What a worker that means no good can use up is bounded, for a C++ program too. All kinds of flood are tried by
// tests/python/test_peer_limits.py; these stand for one of each limit.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include <execnet/execnet.hpp>

#include "soak.hpp"

namespace execnet {
namespace {

constexpr std::chrono::seconds kPatience{50};
constexpr std::size_t kMostMegabytes = 80;  // as in tests/python/test_peer_limits.py

std::string flooding(const std::string& attack, const std::string& limits) {
  return "popen//python=python3 '" EXECNET_SOURCE_DIR "/tests/support/flood.py' '" + attack + "'//limits=" + limits;
}

class Floods : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(Floods, EndTheirGatewayWithAnErrorThatNamesTheLimit) {
  const auto& [attack, key] = GetParam();
  const testing::MemoryBound memory(4096);
  Group group;
  const Gateway gateway = group.makegateway(flooding(attack, "bytes=32M,channels=10000,messages=1000"));
  const Channel channel = gateway.newchannel();  // to which the items come
  gateway.join(kPatience);
  try {
    static_cast<void>(gateway.remote_exec("pass"));
    FAIL() << "the gateway is still there";
  } catch (const GatewayGone& error) {
    EXPECT_NE(std::string(error.what()).find(std::string("limits=") + key), std::string::npos) << error.what();
  }
  EXPECT_TRUE(memory.holds(kMostMegabytes)) << memory.growth() << " MB more";
}

INSTANTIATE_TEST_SUITE_P(Limits, Floods,
                         ::testing::Values(std::pair("items", "bytes"), std::pair("errors of new channels", "channels"),
                                           std::pair("an endless message", "bytes"),
                                           std::pair("begun messages", "messages")),
                         [](const auto& test) {
                           std::string name = test.param.first;
                           std::replace(name.begin(), name.end(), ' ', '_');
                           return name;
                         });

TEST(Limits, ThatAreNoneAreRefusedBeforeAnythingIsStarted) {
  Group group;
  EXPECT_THROW(group.makegateway("popen//limits=bytes"), SpecError);
  EXPECT_EQ(group.size(), 0U);
  EXPECT_EQ(XSpec("popen//limits=channels=5,bytes=2K").limits().bytes, 2048U);
}

}  // namespace
}  // namespace execnet
