#include "connection/outbox.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>

#include "outgoing.hpp"

namespace execnet::core {
namespace {

using testing::data_message;

// What a stream that takes at most `at_once` bytes a call would carry.
std::string drain(Outbox& outbox, std::size_t at_once) {
  std::string stream;
  std::array<iovec, 64> parts;
  while (!outbox.empty()) {
    const std::size_t count = outbox.gather(parts);
    std::size_t taken = 0;
    for (std::size_t i = 0; i < count && taken < at_once; ++i) {
      const std::size_t size = std::min(parts[i].iov_len, at_once - taken);
      stream.append(static_cast<const char*>(parts[i].iov_base), size);
      taken += size;
    }
    outbox.written(taken);
  }
  return stream;
}

std::vector<wire::Message> parse(std::string_view stream) {
  wire::FrameParser parser;
  wire::MessageAssembler assembler;
  std::vector<wire::Message> messages;
  while (!stream.empty()) {
    const auto space = parser.space();
    const std::size_t size = std::min(space.size(), stream.size());
    std::copy_n(stream.begin(), size, space.begin());
    stream.remove_prefix(size);
    parser.received(size);
    while (auto frame = parser.next()) {
      if (auto complete = assembler.add(std::move(*frame))) {
        messages.push_back(std::move(*complete));
      }
    }
  }
  EXPECT_EQ(assembler.pending(), 0U);
  EXPECT_FALSE(parser.within_frame());
  return messages;
}

TEST(Outbox, WhatIsUrgentComesFirstAndInOrder) {
  Outbox outbox;
  outbox.push(data_message(1, "not urgent"));
  for (std::uint32_t number = 1; number <= 3; ++number) {
    auto urgent = data_message(0, "");
    urgent->type = wire::FrameType::kPassed;
    urgent->credit = number;
    urgent->urgent = true;
    outbox.push(std::move(urgent));
  }
  outbox.push(data_message(1, "not urgent either"));
  const auto messages = parse(drain(outbox, std::size_t{1} << 20));
  ASSERT_EQ(messages.size(), 5U);
  for (std::uint32_t number = 1; number <= 3; ++number) {
    EXPECT_EQ(messages[number - 1].type, wire::FrameType::kPassed);
    EXPECT_EQ(messages[number - 1].credit, number);
  }
  EXPECT_EQ(messages[3].payload.view(), "not urgent");
  EXPECT_EQ(messages[4].payload.view(), "not urgent either");
}

TEST(Outbox, WhatGoesInComesOutWhateverTheKernelTakesAtOnce) {
  const std::string big(3 * wire::kChunk + 17, 'b');
  for (const std::size_t at_once : {std::size_t{1000}, std::size_t{4097}, std::size_t{1} << 20}) {
    Outbox outbox;
    outbox.push(data_message(1, "first"));
    outbox.push(data_message(1, big));
    outbox.push(data_message(3, ""));
    const auto messages = parse(drain(outbox, at_once));
    ASSERT_EQ(messages.size(), 3U);
    std::map<std::uint32_t, std::vector<std::string>> by_channel;
    for (const auto& got : messages) {
      by_channel[got.channel].emplace_back(got.payload.view());
    }
    EXPECT_EQ(by_channel[1], (std::vector<std::string>{"first", big}));
    EXPECT_EQ(by_channel[3], std::vector<std::string>{""});
  }
}

TEST(Outbox, AnotherChannelDoesNotWaitForTheEndOfABigMessage) {
  Outbox outbox;
  outbox.push(data_message(1, std::string(20 * wire::kChunk, 'b')));
  outbox.push(data_message(3, "small"));
  const auto messages = parse(drain(outbox, std::size_t{1} << 20));
  ASSERT_EQ(messages.size(), 2U);
  EXPECT_EQ(messages[0].channel, 3U);
  EXPECT_EQ(messages[1].channel, 1U);
}

TEST(Outbox, ALaterMessageOfTheSameChannelDoesWait) {
  Outbox outbox;
  outbox.push(data_message(1, std::string(20 * wire::kChunk, 'b')));
  outbox.push(data_message(1, "small"));
  const auto messages = parse(drain(outbox, std::size_t{1} << 20));
  ASSERT_EQ(messages.size(), 2U);
  EXPECT_EQ(messages[1].payload.view(), "small");
}

TEST(Outbox, AMessageTakenBackBeforeItWasBegunNeverGoesOut) {
  Outbox outbox;
  const auto second = data_message(3, "second");
  outbox.push(data_message(1, "first"));
  outbox.push(second);
  outbox.retract(second);
  EXPECT_EQ(parse(drain(outbox, 100)).size(), 1U);
}

TEST(Outbox, AMessageTakenBackHalfWayIsForgottenByTheOtherSide) {
  Outbox outbox;
  const auto big = data_message(1, std::string(20 * wire::kChunk, 'b'));
  outbox.push(big);
  std::array<iovec, 64> parts;
  const std::size_t count = outbox.gather(parts);
  ASSERT_GT(count, 0U);
  outbox.written(0);
  const std::string begun(static_cast<const char*>(parts[0].iov_base), parts[0].iov_len);
  outbox.written(begun.size());
  outbox.retract(big);
  outbox.push(data_message(1, "next"));
  const auto messages = parse(begun + drain(outbox, 1 << 20));
  ASSERT_EQ(messages.size(), 1U);
  EXPECT_EQ(messages[0].payload.view(), "next");
}

TEST(Outbox, GivesBackAllThatIsDropped) {
  Outbox outbox;
  outbox.push(data_message(1, "posted"));
  outbox.push(data_message(1, "sent"));
  EXPECT_EQ(outbox.clear().size(), 2U);
  EXPECT_TRUE(outbox.empty());
}

}  // namespace
}  // namespace execnet::core
