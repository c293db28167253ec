#include "connection/frame_reader.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "base/syscall.hpp"

namespace execnet::core {
namespace {

std::string frame(wire::FrameType type, std::uint32_t channel, std::string_view payload, std::uint8_t flags = 0) {
  const auto header = wire::pack(
      {.type = type, .flags = flags, .channel = channel, .length = static_cast<std::uint32_t>(payload.size())});
  return std::string(header.data(), header.size()).append(payload);
}

// A DEFLATED frame that becomes these bytes, and says that it becomes so many more.
std::string unit(wire::Deflater& deflater, std::string_view bytes, int lie = 0) {
  base::Buffer payload;
  deflater.deflate(bytes, wire::Deflater::kFast, payload);
  const auto header = wire::pack({.type = wire::FrameType::kDeflated,
                                  .length = static_cast<std::uint32_t>(payload.size()),
                                  .credit = static_cast<std::uint32_t>(static_cast<int>(bytes.size()) + lie)});
  return std::string(header.data(), header.size()).append(payload.view());
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

TEST_F(FrameReaderTest, InflatesWhatComesCompressedAmongOtherFrames) {
  FrameReader reader(link_, false);
  reader.expect_deflated();
  wire::Deflater deflater;
  const std::string large(100'000, 'x');
  const std::string first =
      unit(deflater, frame(wire::FrameType::kData, 1, " and within") + frame(wire::FrameType::kData, 3, large));
  const std::string second = unit(deflater, frame(wire::FrameType::kData, 7, large));
  say(frame(wire::FrameType::kData, 1, "before", wire::kMore) + first + frame(wire::FrameType::kData, 5, "after") +
      second);
  const Incoming incoming = reader.read();
  EXPECT_EQ(incoming.error, "");
  ASSERT_EQ(incoming.messages.size(), 4U);
  EXPECT_EQ(incoming.messages[0].payload.view(), "before and within");
  EXPECT_EQ(incoming.messages[1].payload.view(), large);
  EXPECT_EQ(incoming.messages[2].payload.view(), "after");
  EXPECT_EQ(incoming.messages[3].payload.view(), large);
}

TEST_F(FrameReaderTest, EndsWithTheReasonWhereAUnitIsNone) {
  const std::string whole = frame(wire::FrameType::kData, 1, "payload");
  const auto error = [&](const std::string& bytes, bool expected = true) {
    auto [here, there] = base::socket_pair();
    Link link(std::move(here));
    FrameReader reader(link, false);
    if (expected) {
      reader.expect_deflated();
    }
    EXPECT_EQ(::write(there.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    return reader.read().error;
  };
  const auto of = [&](std::string_view bytes, int lie = 0) {
    wire::Deflater deflater;
    return error(unit(deflater, bytes, lie));
  };
  wire::Deflater deflater;
  EXPECT_NE(error(unit(deflater, whole), false).find("not agreed on"), std::string::npos);
  EXPECT_EQ(of(whole), "");
  EXPECT_NE(of(whole, 1).find("fewer bytes than it says"), std::string::npos);
  EXPECT_NE(of(whole, -1).find("more bytes than it says"), std::string::npos);
  EXPECT_NE(of(whole.substr(0, 20)).find("ends within a frame"), std::string::npos);
  EXPECT_NE(of(whole + whole.substr(0, 9)).find("ends within a frame"), std::string::npos);
  EXPECT_NE(of(frame(wire::FrameType::kRings, 0, "")).find("RINGS frame within"), std::string::npos);
  EXPECT_NE(of(std::string(16, '\xff')).find("unknown frame type"), std::string::npos);
  wire::Deflater other;
  EXPECT_NE(of(unit(other, whole)).find("DEFLATED frame within"), std::string::npos);
}

// A kilobyte becomes a megabyte of messages: a read ends, and there is more without anything to read.
TEST_F(FrameReaderTest, MakesNoMoreThanAMegabyteAtATime) {
  FrameReader reader(link_, false);
  reader.expect_deflated();
  std::string frames;
  while (frames.size() < wire::kMaxInflated) {
    frames += frame(wire::FrameType::kClose, 1, "");
  }
  wire::Deflater deflater;
  std::string all;
  for (int i = 0; i < 3; ++i) {
    all += unit(deflater, frames);
  }
  ASSERT_LT(all.size(), 40'000U);
  say(all);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(reader.read().messages.size(), frames.size() / 16) << i;
    EXPECT_TRUE(reader.has_more());
  }
  EXPECT_TRUE(reader.read().messages.empty());
  EXPECT_FALSE(reader.has_more());
}

}  // namespace
}  // namespace execnet::core
