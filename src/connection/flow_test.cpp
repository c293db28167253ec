#include "connection/flow.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <deque>
#include <limits>
#include <random>

namespace execnet::core {
namespace {

// What is taken is told at once.
std::uint32_t take(Flow& flow, std::size_t bytes) {
  flow.on_taken(bytes);
  return flow.credit_due();
}

TEST(Flow, WithoutWindowThereIsAlwaysRoomAndNothingIsTold) {
  Flow flow(kUnbounded);
  flow.on_sent(std::size_t{1} << 40);
  EXPECT_TRUE(flow.has_room(std::size_t{1} << 40));
  EXPECT_EQ(flow.outstanding(), std::uint64_t{1} << 40);
  EXPECT_TRUE(flow.on_arrived(std::size_t{1} << 40));
  EXPECT_EQ(take(flow, std::size_t{1} << 40), 0U);
}

TEST(Flow, ItemsFillTheWindowAndNotMore) {
  Flow flow(800);
  flow.on_sent(500);
  EXPECT_TRUE(flow.has_room(300));
  EXPECT_FALSE(flow.has_room(301));
  flow.on_sent(300);
  EXPECT_FALSE(flow.has_room(0));
  EXPECT_TRUE(flow.on_credit(1));
  EXPECT_TRUE(flow.has_room(1));
  EXPECT_EQ(flow.outstanding(), 799U);
}

TEST(Flow, AnItemLargerThanTheWindowPassesWhenLessThanAnEighthIsOnItsWay) {
  Flow flow(800);
  EXPECT_TRUE(flow.has_room(5000));
  flow.on_sent(99);
  EXPECT_TRUE(flow.has_room(5000));
  flow.on_sent(1);
  EXPECT_FALSE(flow.has_room(5000));
  flow.on_sent(5000);
  EXPECT_FALSE(flow.has_room(1));
}

TEST(Flow, TheSmallestWindowIsOneItemAtATime) {
  Flow flow(1);
  EXPECT_TRUE(flow.has_room(7));
  flow.on_sent(7);
  EXPECT_FALSE(flow.has_room(0));
  Flow other(1);
  EXPECT_TRUE(other.on_arrived(7));
  EXPECT_EQ(take(other, 7), 7U);
}

TEST(Flow, WhatWasTakenIsToldByEighths) {
  Flow flow(800);
  EXPECT_EQ(take(flow, 60), 0U);
  EXPECT_EQ(take(flow, 40), 100U);
  EXPECT_EQ(flow.credit_due(), 0U);
}

TEST(Flow, CreditThatDoesNotFitIntoAFrameIsToldInSeveral) {
  Flow flow(800);
  constexpr std::uint32_t kMost = std::numeric_limits<std::uint32_t>::max();
  EXPECT_EQ(take(flow, std::size_t{kMost} + 1000), kMost);
  EXPECT_EQ(flow.credit_due(), 1000U);
}

TEST(Flow, MoreCreditThanIsOnTheWayIsRefused) {
  Flow flow(800);
  flow.on_sent(10);
  flow.on_taken_back(3);
  EXPECT_FALSE(flow.on_credit(8));
  EXPECT_TRUE(flow.on_credit(7));
  EXPECT_FALSE(flow.on_credit(1));
  EXPECT_TRUE(flow.on_credit(0));
}

TEST(Flow, WhoIgnoresTheWindowOfTheGatewayIsFoundOut) {
  Flow flow(800);
  EXPECT_TRUE(flow.on_arrived(800));
  EXPECT_FALSE(flow.on_arrived(1));
  Flow told(800);
  EXPECT_TRUE(told.on_arrived(5000));
  EXPECT_EQ(take(told, 5000), 5000U);
  EXPECT_TRUE(told.on_arrived(800));
}

TEST(Flow, TheSmallerOfTheWindowsThatTheEndsHaveSetHolds) {
  Flow flow(800);
  flow.set_theirs(5000);
  EXPECT_EQ(flow.window(), 5000U);
  flow.set_ours(300);
  EXPECT_EQ(flow.window(), 300U);
  flow.set_ours(kUnbounded);
  EXPECT_EQ(flow.window(), 5000U);
  flow.set_theirs(kUnbounded);
  EXPECT_EQ(flow.window(), kUnbounded);
}

TEST(Flow, AWindowSetLateCountsWhatWasBefore) {
  Flow sender(kUnbounded);
  Flow receiver(kUnbounded);
  sender.on_sent(1000);
  EXPECT_TRUE(receiver.on_arrived(1000));
  EXPECT_EQ(take(receiver, 600), 0U);
  sender.set_ours(500);
  EXPECT_FALSE(sender.has_room(1));
  receiver.set_theirs(500);
  EXPECT_TRUE(sender.on_credit(receiver.credit_due()));
  EXPECT_EQ(sender.outstanding(), 400U);
  EXPECT_TRUE(sender.has_room(100));
}

// Whatever the sizes, and however late the credit: a receiver that takes all lets the next item pass, and
// never finds fault with a sender that keeps to the rule.
TEST(Flow, NobodyWaitsForEver) {
  std::mt19937 random(7);  // NOLINT: the same numbers every time
  for (const std::uint64_t window : std::array<std::uint64_t, 5>{1, 7, 8, 1000, 1 << 20}) {
    Flow sender(window);
    Flow receiver(window);
    std::deque<std::size_t> on_the_way;
    std::deque<std::uint32_t> credits;
    std::size_t passed = 0;
    while (passed < 2000) {
      const std::size_t size = random() % (window * 2) / (1 + random() % 16);
      while (!sender.has_room(size)) {
        ASSERT_FALSE(on_the_way.empty() && credits.empty()) << "window " << window << ", item " << size;
        if (!on_the_way.empty() && (credits.empty() || random() % 2 == 0)) {
          ASSERT_TRUE(receiver.on_arrived(on_the_way.front()));
          if (const auto credit = take(receiver, on_the_way.front()); credit != 0) {
            credits.push_back(credit);
          }
          on_the_way.pop_front();
        } else {
          ASSERT_TRUE(sender.on_credit(credits.front()));
          credits.pop_front();
        }
      }
      sender.on_sent(size);
      on_the_way.push_back(size);
      ++passed;
      EXPECT_LE(sender.outstanding(), std::max(window, size + window / 8 + 1));
    }
  }
}

}  // namespace
}  // namespace execnet::core
