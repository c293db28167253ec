#include "connection/channels.hpp"

#include <gtest/gtest.h>

#include <string>

#include "connection/channel_handle.hpp"
#include "wire/frame.hpp"

namespace execnet::core {
namespace {

constexpr std::size_t kNothing = 0;

std::string refusal(const Channels& channels, std::size_t unfinished = kNothing, std::size_t bytes = kNothing,
                    std::size_t replies = kNothing) {
  try {
    channels.check(unfinished, bytes, replies);
  } catch (const wire::ProtocolError& error) {
    return error.what();
  }
  return "";
}

void close_both(Channels& channels, ChannelState& state) {
  state.closed = state.peer_closed = true;
  channels.forget_if_over(state);
}

TEST(Channels, CountTheirOwnIdsFromOneOrTwo) {
  Channels coordinator(Side::kCoordinator);
  EXPECT_EQ(coordinator.make()->id, 1U);
  EXPECT_EQ(coordinator.make()->id, 3U);
  Channels worker(Side::kWorker);
  EXPECT_EQ(worker.make()->id, 2U);
  EXPECT_TRUE(worker.is_ours(2));
  EXPECT_FALSE(worker.is_ours(1));
}

TEST(Channels, OneOfTheOtherSideExistsFromItsFirstFrameOn) {
  Channels channels(Side::kCoordinator);
  const auto state = channels.of_frame(2);
  ASSERT_NE(state, nullptr);
  EXPECT_EQ(channels.of_frame(2), state);
  EXPECT_EQ(channels.of_frame(7), nullptr) << "an id of this side that this side has not made";
  EXPECT_THROW(channels.of_frame(0), wire::ProtocolError);
}

TEST(Channels, OneThatIsOverIsForgottenAndItsIdIsNot) {
  Channels channels(Side::kCoordinator);
  close_both(channels, *channels.of_frame(2));
  EXPECT_EQ(channels.find(2), nullptr);
  EXPECT_EQ(channels.of_frame(2), nullptr) << "a late frame is for nobody";
  const auto ours = channels.make();
  close_both(channels, *ours);
  EXPECT_EQ(channels.of_frame(ours->id), nullptr);
}

TEST(Channels, ItemsOfOneWhoseReferenceIsStillToComeAreKept) {
  Channels channels(Side::kCoordinator);
  const auto state = channels.of_frame(2);
  channels.on_kept(4);
  state->items.push_back(base::Buffer("item"));
  close_both(channels, *state);
  EXPECT_EQ(channels.find(2), state);
  channels.on_referenced(*state);
  channels.on_unreferenced();
  channels.drop_items(*state);
  channels.forget_if_over(*state);
  EXPECT_EQ(channels.find(2), nullptr);
}

TEST(Channels, AfterTheEndAllAreLost) {
  Channels channels(Side::kCoordinator);
  const auto before = channels.make();
  EXPECT_EQ(channels.all().size(), 1U);
  channels.end();
  EXPECT_TRUE(channels.all().empty());
  EXPECT_TRUE(channels.make()->lost);
  EXPECT_TRUE(channels.over(2)->lost);
  EXPECT_EQ(channels.of_frame(4), nullptr);
}

TEST(Channels, WithoutLimitsNothingIsRefused) {
  const Channels channels(Side::kWorker);
  EXPECT_EQ(refusal(channels, 1U << 30, std::size_t{1} << 50, 1U << 30), "");
}

class LimitedChannels : public ::testing::Test {
 protected:
  LimitedChannels() { channels_.set_limits({.bytes = 1000, .channels = 3, .messages = 2}); }

  Channels channels_{Side::kCoordinator};
};

TEST_F(LimitedChannels, CountTheBytesThatNobodyHasReceived) {
  for (int i = 0; i < 9; ++i) {
    channels_.on_kept(10);
    EXPECT_EQ(refusal(channels_), "") << i;
  }
  EXPECT_NE(refusal(channels_, 0, 335).find("limits=bytes=1000"), std::string::npos);
  for (int i = 0; i < 9; ++i) {
    channels_.on_kept(10);
  }
  EXPECT_NE(refusal(channels_).find("limits=bytes=1000"), std::string::npos);
  for (int i = 0; i < 9; ++i) {
    channels_.on_taken(10);
  }
  EXPECT_EQ(refusal(channels_), "");
}

// A callback has its items still to come when both ends have closed its channel.
TEST_F(LimitedChannels, ForgetNoBytesWithTheirChannel) {
  const auto state = channels_.of_frame(2);
  channels_.on_referenced(*state);
  channels_.on_unreferenced();
  channels_.on_kept(10);
  channels_.on_kept(5);
  state->errors.push_back("error");
  close_both(channels_, *state);
  EXPECT_EQ(refusal(channels_, 0, 1000 - 74), "") << "those of the error text are gone";
  EXPECT_NE(refusal(channels_, 0, 1000 - 73), "") << "those of the item are not";
  channels_.on_taken(10);
  EXPECT_EQ(refusal(channels_, 0, 1000), "");
}

TEST_F(LimitedChannels, CountChannelsThatNobodyHas) {
  std::vector<std::shared_ptr<ChannelState>> states;
  for (std::uint32_t id = 2; id <= 8; id += 2) {
    states.push_back(channels_.of_frame(id));
  }
  EXPECT_NE(refusal(channels_).find("limits=channels=3"), std::string::npos);
  channels_.on_referenced(*states[0]);
  EXPECT_EQ(refusal(channels_), "") << "the program's own do not count";
  channels_.on_unreferenced();
  EXPECT_NE(refusal(channels_), "");
  close_both(channels_, *states[1]);
  channels_.on_referenced(*states[0]);
  EXPECT_EQ(refusal(channels_), "") << "nor do those that are over";
}

// What remembers that ids are over grows with the gaps between them.
TEST_F(LimitedChannels, CountGapsBetweenIdsThatAreOver) {
  for (std::uint32_t id = 2; id <= 40; id += 8) {
    close_both(channels_, *channels_.of_frame(id));
  }
  EXPECT_NE(refusal(channels_).find("limits=channels=3"), std::string::npos);
}

TEST_F(LimitedChannels, CountMessagesThatAreNotCompleteAndAnswersThatNobodyReads) {
  EXPECT_EQ(refusal(channels_, 2, 1000, 3), "");
  EXPECT_NE(refusal(channels_, 3).find("limits=messages=2"), std::string::npos);
  EXPECT_NE(refusal(channels_, 0, 0, 4).find("does not read the answers"), std::string::npos);
}

}  // namespace
}  // namespace execnet::core
