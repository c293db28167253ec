#include "connection/trace.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <execnet/execnet.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/syscall.hpp"
#include "connection/value_message.hpp"

namespace execnet::core {
namespace {

// "1764537600.000001"
bool is_time(std::string_view text) {
  return text.size() == 17 && text[10] == '.' && text.find_first_not_of("0123456789.") == std::string_view::npos;
}

constexpr std::chrono::seconds kPatience{20};

// Lines without what comes before the direction.
class TraceTest : public ::testing::Test {
 protected:
  TraceTest() : TraceTest(base::make_pipe()) {}

  std::string said() {
    std::array<char, 8192> bytes;
    const ssize_t size = ::read(out_.get(), bytes.data(), bytes.size());
    const std::string text(bytes.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
    const std::string who = " " + std::to_string(::getpid()) + " gw0 ";
    std::string lines;
    std::size_t at = 0;
    while (at < text.size()) {
      const std::size_t end = text.find('\n', at);
      const std::string line = text.substr(at, end - at);
      const std::size_t begin = line.find(who);
      EXPECT_TRUE(is_time(line.substr(0, begin))) << line;
      lines += line.substr(begin + who.size()) + "\n";
      at = end + 1;
    }
    return lines;
  }

  base::Fd out_;
  Trace trace_;

 private:
  explicit TraceTest(std::pair<base::Fd, base::Fd> pipe)
      : out_(std::move(pipe.first)),
        trace_(std::make_shared<TraceOutput>(TraceTo::kFile, std::move(pipe.second)), "gw0") {}
};

wire::FrameHeader header(wire::FrameType type, std::uint32_t channel, std::size_t length, std::uint8_t flags = 0) {
  return {.type = type, .flags = flags, .channel = channel, .length = static_cast<std::uint32_t>(length)};
}

TEST_F(TraceTest, ALineHasDirectionTypeChannelAndSize) {
  trace_.sends(header(wire::FrameType::kData, 3, 7), "payload");
  trace_.received(header(wire::FrameType::kClose, 3, 0), "");
  EXPECT_EQ(said(), "-> DATA 3 7\n<- CLOSE 3 0\n");
}

TEST_F(TraceTest, ALineHasTheFlagsAndTheCredit) {
  trace_.sends(header(wire::FrameType::kExec, 1, 5, wire::kMore), "part.");
  trace_.sends(header(wire::FrameType::kExec, 1, 0, wire::kAbort), "");
  trace_.received({.type = wire::FrameType::kCredit, .channel = 1, .credit = 42}, "");
  EXPECT_EQ(said(), "-> EXEC 1 5 more\n-> EXEC 1 0 abort\n<- CREDIT 1 0 credit 42\n");
}

TEST_F(TraceTest, OfCodeItSaysOnlyWhereItIsFrom) {
  const auto say = [&](Tuple exec) {
    const base::Buffer payload = encode_value(Value(std::move(exec)));
    trace_.received(header(wire::FrameType::kExec, 1, 9), payload.view());
  };
  say({"secret = 1", "/a b\n.py", 12, "task", Dict{{"key", "hidden"}}});
  say({"secret = 1", Value(), 1, Value(), Dict{}});
  EXPECT_EQ(said(), "<- EXEC 1 9 /a b .py:12 task\n<- EXEC 1 9 text\n");
}

TEST_F(TraceTest, OfAHelloItSaysWhoTheOtherIsAndNothingOfItsEnvironment) {
  const auto say = [&](Dict hello) {
    const base::Buffer payload = encode_value(Value(std::move(hello)));
    trace_.received(header(wire::FrameType::kHello, 0, 9), payload.view());
  };
  say({{"id", "gw0-worker"}, {"execmodel", "thread"}, {"env", Dict{{"TOKEN", "secret"}}}});
  say({{"implementation", "native"}, {"pid", 12}, {"executable", "/python"}});
  say({{"error", "chdir=/x: no"}});
  EXPECT_EQ(said(),
            "<- HELLO 0 9 id gw0-worker execmodel thread\n<- HELLO 0 9 native pid 12 /python\n"
            "<- HELLO 0 9 error: chdir=/x: no\n");
}

TEST_F(TraceTest, WhatDoesNotDecodeIsStillAFrame) {
  trace_.received(header(wire::FrameType::kHello, 0, 3), "abc");
  trace_.received(header(wire::FrameType::kExec, 1, 1), "L");
  EXPECT_EQ(said(), "<- HELLO 0 3\n<- EXEC 1 1\n");
}

TEST_F(TraceTest, RawBytesMayBeAFrame) {
  const auto bytes = wire::pack(header(wire::FrameType::kHello, 0, 0));
  trace_.sends_raw(std::string(wire::kMagic) + std::string(bytes.data(), bytes.size()));
  trace_.sends_raw("\x1f\x8b and more of the worker's source");
  trace_.sends_raw("");
  EXPECT_EQ(said(), "-> HELLO 0 0\n-> BYTES 0 34 before the first frame\n-> BYTES 0 0 before the first frame\n");
}

TEST_F(TraceTest, ANoteIsOneLineThatATerminalShowsAsItIs) {
  trace_.note("gone\x1b[31m\nlast on its stderr: secret");
  EXPECT_EQ(said(), "-- gone\\x1b[31m\n");
}

class DebugTest : public ::testing::Test {
 protected:
  DebugTest() : directory_(::testing::TempDir() + "execnet-trace-" + std::to_string(::getpid())) {
    std::filesystem::create_directory(directory_);
    ::setenv("TMPDIR", directory_.c_str(), 1);
  }
  ~DebugTest() override {
    ::unsetenv("TMPDIR");
    ::unsetenv("EXECNET_DEBUG");
    std::filesystem::remove_all(directory_);
  }

  // The texts of all files.
  std::vector<std::string> traces() const {
    std::vector<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
      std::ifstream file(entry.path());
      found.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    return found;
  }

  static void work() {
    Group group{"popen//env:TOKEN=secret"};
    Channel channel = group["gw0"].remote_exec("channel.send(channel.receive())");
    channel.send("hidden");
    EXPECT_EQ(channel.receive(kPatience), Value("hidden"));
    group.terminate(kPatience);
  }

  const std::filesystem::path directory_;
};

TEST_F(DebugTest, BothEndsOfAGatewayTrace) {
  ::setenv("EXECNET_DEBUG", "1", 1);
  work();
  const auto found = traces();
  ASSERT_EQ(found.size(), 2U);
  const bool first = found[0].find(" gw0 -> EXEC 1 ") != std::string::npos;
  EXPECT_NE(found[first ? 0 : 1].find(" gw0 -- starts popen"), std::string::npos) << found[0] << found[1];
  EXPECT_NE(found[first ? 1 : 0].find(" gw0-worker <- EXEC 1 "), std::string::npos) << found[0] << found[1];
  EXPECT_EQ((found[0] + found[1]).find("secret"), std::string::npos);
  EXPECT_EQ((found[0] + found[1]).find("hidden"), std::string::npos);
}

TEST_F(DebugTest, AllButNothingZeroAndTwoAreOne) {
  EXPECT_EQ(trace_wanted(), TraceTo::kNowhere);
  for (const auto& [setting, to] :
       {std::pair{"", TraceTo::kNowhere}, std::pair{"0", TraceTo::kNowhere}, std::pair{"1", TraceTo::kFile},
        std::pair{"2", TraceTo::kStderr}, std::pair{"yes", TraceTo::kFile}, std::pair{"22", TraceTo::kFile}}) {
    ::setenv("EXECNET_DEBUG", setting, 1);
    EXPECT_EQ(trace_wanted(), to) << setting;
  }
}

TEST_F(DebugTest, NobodyTracesUnlessAskedTo) {
  for (const char* off : {"", "0"}) {
    ::setenv("EXECNET_DEBUG", off, 1);
    work();
    EXPECT_EQ(traces().size(), 0U);
  }
}

TEST_F(DebugTest, AFileIsForItsOwnerOnlyAndNoneThatIsThereIsTouched) {
  const std::string name = (directory_ / ("execnet-debug-" + std::to_string(::getpid()))).string();
  const std::string target = (directory_ / "target").string();
  std::filesystem::create_symlink(target, name);
  const auto output = TraceOutput::open(TraceTo::kFile);
  ASSERT_TRUE(output);
  struct stat status{};
  ASSERT_EQ(::stat((name + "-2").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
  EXPECT_FALSE(std::filesystem::exists(target));
}

TEST_F(DebugTest, WithoutAFileThereIsNoTrace) {
  ::setenv("TMPDIR", "/nonexistent", 1);
  ::testing::internal::CaptureStderr();
  EXPECT_FALSE(TraceOutput::open(TraceTo::kFile));
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(said.find("execnet: EXECNET_DEBUG has no effect: open(/nonexistent/execnet-debug-"), 0U) << said;
}

}  // namespace
}  // namespace execnet::core
