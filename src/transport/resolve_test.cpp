#include "transport/resolve.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace execnet::transport {
namespace {

using namespace std::chrono_literals;

TEST(Resolve, NumbersAreWhatTheyAreAndNamesAreLookedUp) {
  EXPECT_EQ(resolve("127.0.0.1", {}), std::vector<std::string>{"127.0.0.1"});
  EXPECT_EQ(resolve("::1", {}), std::vector<std::string>{"::1"});
  const auto localhost = resolve("localhost", {});
  EXPECT_TRUE(std::find(localhost.begin(), localhost.end(), "127.0.0.1") != localhost.end() ||
              std::find(localhost.begin(), localhost.end(), "::1") != localhost.end());
}

TEST(Resolve, ANameThatIsNoneIsAnErrorAndNoOption) {
  EXPECT_THROW(resolve("no-such-host.invalid", {}), std::runtime_error);
  EXPECT_THROW(resolve("--help", {}), std::runtime_error);
}

// A resolver that another program stands in for, the first of its name in PATH.
class OtherGetent : public testing::Test {
 protected:
  OtherGetent() {
    directory_ = testing::TempDir() + "execnet-getent-XXXXXX";
    EXPECT_NE(::mkdtemp(directory_.data()), nullptr);
    path_ = std::getenv("PATH");
  }
  ~OtherGetent() override {
    ::setenv("PATH", path_.c_str(), 1);
    std::filesystem::remove_all(directory_);
  }
  void is(const std::string& script) {
    std::ofstream(directory_ + "/getent") << "#!/bin/sh\n" << script << "\n";
    ::chmod((directory_ + "/getent").c_str(), 0755);
    ::setenv("PATH", (directory_ + ":" + path_).c_str(), 1);
  }
  std::string directory_;
  std::string path_;
};

TEST_F(OtherGetent, ThatDoesNotAnswerIsKilledAtTheDeadline) {
  is("echo $$ > " + directory_ + "/pid; exec sleep 1000");
  const auto begin = base::Clock::now();
  EXPECT_THROW(resolve("name", {.deadline = begin + 300ms}), std::runtime_error);
  EXPECT_LT(base::Clock::now() - begin, 30s);
  std::string pid;
  if (std::ifstream(directory_ + "/pid") >> pid) {  // on a busy machine it may not have come so far
    EXPECT_FALSE(std::filesystem::exists("/proc/" + pid));
  }
}

TEST_F(OtherGetent, ThatIsWaitedForCanBeInterrupted) {
  is("exec sleep 1000");
  EXPECT_THROW(resolve("name", {.interrupted = [] { throw std::logic_error("enough"); }}), std::logic_error);
}

TEST_F(OtherGetent, SaysWhichAddresses) {
  is("echo 10.0.0.1 STREAM a; echo 10.0.0.1 DGRAM; echo 10.0.0.2 STREAM");
  EXPECT_EQ(resolve("name", {}), (std::vector<std::string>{"10.0.0.1", "10.0.0.2"}));
}

}  // namespace
}  // namespace execnet::transport
