#include "connection/frame_reader.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "base/syscall.hpp"

namespace execnet::core {
namespace {

std::string frame(wire::FrameType type, std::uint32_t channel, std::string_view payload, std::uint8_t flags = 0) {
  const auto header = wire::pack(
      {.type = type, .flags = flags, .channel = channel, .length = static_cast<std::uint32_t>(payload.size())});
  return std::string(header.data(), header.size()).append(payload);
}

class FrameReaderTest : public ::testing::Test {
 protected:
  FrameReaderTest() : FrameReaderTest(base::socket_pair()) {}

  void say(std::string_view bytes) {
    ASSERT_EQ(::write(there_.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }

  base::Fd there_;
  Link link_;

 private:
  explicit FrameReaderTest(std::pair<base::Fd, base::Fd> sockets)
      : there_(std::move(sockets.second)), link_(std::move(sockets.first)) {}
};

TEST_F(FrameReaderTest, GivesTheMessagesThatAreCompleteAndKeepsTheRest) {
  FrameReader reader(link_, false);
  const std::string second = frame(wire::FrameType::kData, 3, "second");
  say(frame(wire::FrameType::kData, 1, "first") + second.substr(0, 10));
  Incoming incoming = reader.read();
  ASSERT_EQ(incoming.messages.size(), 1U);
  EXPECT_EQ(incoming.messages[0].payload.view(), "first");
  EXPECT_TRUE(reader.within_frame());
  say(second.substr(10));
  incoming = reader.read();
  ASSERT_EQ(incoming.messages.size(), 1U);
  EXPECT_EQ(incoming.messages[0].channel, 3U);
  EXPECT_FALSE(reader.within_frame());
}

TEST_F(FrameReaderTest, GivesNothingWhereNothingIs) {
  FrameReader reader(link_, false);
  const Incoming incoming = reader.read();
  EXPECT_TRUE(incoming.messages.empty());
  EXPECT_FALSE(incoming.ended);
}

TEST_F(FrameReaderTest, SkipsWhatALoginShellPrintsFirst) {
  FrameReader reader(link_, true);
  say("Welcome!\n" + std::string(wire::kMagic.substr(0, 3)));
  EXPECT_TRUE(reader.read().messages.empty());
  say(std::string(wire::kMagic.substr(3)) + frame(wire::FrameType::kClose, 1, ""));
  ASSERT_EQ(reader.read().messages.size(), 1U);
}

TEST_F(FrameReaderTest, QuotesWhatCameInPlaceOfAWorker) {
  FrameReader reader(link_, true);
  say("bash: python: not found\n");
  static_cast<void>(reader.read());
  there_.reset();
  const Incoming incoming = reader.read();
  EXPECT_TRUE(incoming.ended);
  EXPECT_NE(incoming.error.find("bash: python: not found"), std::string::npos) << incoming.error;
}

TEST_F(FrameReaderTest, SaysThatTheStreamEndedWithinAFrame) {
  FrameReader reader(link_, false);
  say(frame(wire::FrameType::kData, 1, "cut").substr(0, 17));
  static_cast<void>(reader.read());
  there_.reset();
  const Incoming incoming = reader.read();
  EXPECT_TRUE(incoming.ended);
  EXPECT_EQ(incoming.error, "the stream ended in the middle of a frame");
}

TEST_F(FrameReaderTest, EndsWithTheReasonWhereThePeerBreaksTheProtocol) {
  FrameReader reader(link_, false);
  say(std::string(16, '\xff'));
  const Incoming incoming = reader.read();
  EXPECT_TRUE(incoming.ended);
  EXPECT_NE(incoming.error.find("unknown frame type"), std::string::npos) << incoming.error;
}

TEST_F(FrameReaderTest, CountsMessagesOfWhichOnlyAPartHasCome) {
  FrameReader reader(link_, false);
  say(frame(wire::FrameType::kData, 1, "begun", wire::kMore) + frame(wire::FrameType::kData, 3, "", wire::kMore));
  Incoming incoming = reader.read();
  EXPECT_EQ(incoming.unfinished, 2U);
  EXPECT_EQ(incoming.unfinished_bytes, 5U);
  say(frame(wire::FrameType::kData, 1, " and ended"));
  incoming = reader.read();
  ASSERT_EQ(incoming.messages.size(), 1U);
  EXPECT_EQ(incoming.messages[0].payload.view(), "begun and ended");
  EXPECT_EQ(incoming.unfinished, 1U);
  EXPECT_EQ(incoming.unfinished_bytes, 0U);
}

}  // namespace
}  // namespace execnet::core
