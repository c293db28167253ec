// A line of a given rate, on a clock of the test's own.
#include "connection/pace.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <utility>
#include <vector>

#include "wire/deflate.hpp"
#include "wire/frame.hpp"

namespace execnet::core {
namespace {

constexpr std::size_t kKiB = 1024;
constexpr std::size_t kMiB = 1024 * kKiB;
constexpr std::size_t kPiece = 64 * kKiB;

class PaceTest : public ::testing::Test {
 protected:
  // Sends so many bytes in pieces over a line of so many bytes per second. `at_most` are under way at a time. To
  // compress takes time, too, and the line is at work meanwhile.
  void send(std::size_t bytes, double rate, std::size_t at_most = 2 * kMiB) {
    for (std::size_t sent = 0; sent < bytes;) {
      while (sent_ - arrived() > at_most) {
        now_ += std::chrono::microseconds(100);
      }
      if (pace_.wants_probe()) {
        probes_.emplace_back(pace_.probe(now_), free_at_ + round_trip_);
      }
      const int level = pace_.level();
      const std::size_t piece = pace_.measures() ? Pace::kSegment : kPiece;
      std::size_t on_line = piece;
      if (level != 0) {
        now_ += seconds(static_cast<double>(piece) / (level == 1 ? deflates_ : deflates_ / 3));
        on_line = static_cast<std::size_t>(static_cast<double>(piece) * ratio_);
      }
      free_at_ = std::max(free_at_, now_) + seconds(static_cast<double>(on_line) / rate);
      sent_ += on_line;
      under_way_.emplace_back(on_line, free_at_);
      answer();
      if (level != 0) {
        deflated_ += piece;
        pace_.deflated(piece, on_line, now_);
      } else {
        pace_.wrote(piece);
      }
      sent += piece;
      answer();
    }
  }

  // Sends all that is measured this time, in no time; the numbers of its probes.
  std::vector<std::uint32_t> send_measured() {
    std::vector<std::uint32_t> numbers;
    while (pace_.measures()) {
      if (pace_.wants_probe()) {
        numbers.push_back(pace_.probe(now_));
      }
      pace_.wrote(Pace::kSegment);
    }
    return numbers;
  }

  static Pace::Time::duration seconds(double count) {
    return std::chrono::duration_cast<Pace::Time::duration>(std::chrono::duration<double>(count));
  }
  // All that is under way arrives.
  void rest() {
    now_ = std::max(now_, free_at_) + round_trip_ + std::chrono::milliseconds(1);
    answer();
  }

  Pace pace_;
  Pace::Time now_{std::chrono::hours(1)};
  Pace::Time::duration round_trip_ = std::chrono::milliseconds(1);
  double ratio_ = 0.25;
  double deflates_ = 80e6;    // bytes per second, at level 1
  std::size_t deflated_ = 0;  // bytes, ever

 private:
  std::size_t arrived() {
    while (!under_way_.empty() && under_way_.front().second <= now_) {
      arrived_ += under_way_.front().first;
      under_way_.pop_front();
    }
    answer();
    return arrived_;
  }
  // Each at its time.
  void answer() {
    while (!probes_.empty() && std::max(probes_.front().second, Pace::Time{}) <= now_) {
      const auto [number, when] = probes_.front();
      probes_.pop_front();
      pace_.passed(number, when);
    }
  }

  Pace::Time free_at_{};  // of the line
  std::size_t sent_ = 0;
  std::size_t arrived_ = 0;
  std::deque<std::pair<std::size_t, Pace::Time>> under_way_;
  std::deque<std::pair<std::uint32_t, Pace::Time>> probes_;
};

TEST_F(PaceTest, AtFirstNothingIsCompressed) {
  EXPECT_EQ(pace_.level(), 0);
  EXPECT_FALSE(pace_.wants_probe());
  pace_.wrote(1000);
  EXPECT_EQ(pace_.level(), 0);
  EXPECT_FALSE(pace_.wants_probe());
}

TEST_F(PaceTest, ASlowLineGetsNearlyAllCompressed) {
  send(40 * kMiB, 12e6);
  EXPECT_GT(deflated_, 38 * kMiB);
  EXPECT_EQ(pace_.level(), wire::Deflater::kFast);
}

TEST_F(PaceTest, AVerySlowLineGetsItCompressedWell) {
  send(20 * kMiB, 2.5e6);
  EXPECT_GT(deflated_, 19 * kMiB);
  EXPECT_EQ(pace_.level(), wire::Deflater::kGood);
}

TEST_F(PaceTest, AFastLineGetsNoMoreThanWhatWasOnCredit) {
  send(100 * kMiB, 200e6);
  EXPECT_LE(deflated_, kMiB);
  EXPECT_EQ(pace_.level(), 0);
}

TEST_F(PaceTest, AFastLineWithALongRoundTripIsNotTakenForASlowOne) {
  round_trip_ = std::chrono::milliseconds(150);
  send(100 * kMiB, 200e6, 16 * kMiB);
  EXPECT_LE(deflated_, 9 * kMiB);
  EXPECT_EQ(pace_.level(), 0);
}

TEST_F(PaceTest, ASlowLineIsFoundThoughAWindowLetsLittleBeUnderWay) {
  round_trip_ = std::chrono::milliseconds(20);
  send(20 * kMiB, 2.5e6, kMiB);
  EXPECT_GT(deflated_, 18 * kMiB);
}

TEST_F(PaceTest, WhatIsSentNowAndThenTellsNothing) {
  for (int i = 0; i < 200; ++i) {
    send(kPiece, 2.5e6);
    rest();
  }
  EXPECT_LE(deflated_, 9 * kMiB);
}

TEST_F(PaceTest, ALineThatBecomesFastIsFound) {
  send(20 * kMiB, 2.5e6);
  deflated_ = 0;
  send(200 * kMiB, 400e6);
  EXPECT_EQ(pace_.level(), 0);
  EXPECT_LT(deflated_, 40 * kMiB);
}

TEST_F(PaceTest, ALineThatBecomesSlowIsFound) {
  send(20 * kMiB, 400e6);
  deflated_ = 0;
  send(80 * kMiB, 2.5e6);
  EXPECT_GT(deflated_, 30 * kMiB);
}

// A processor that has too much to do: what was meant to help does not.
TEST_F(PaceTest, WhoCompressesMoreSlowlyThanTheLineGivesUp) {
  deflates_ = 6e6;
  send(60 * kMiB, 12e6);
  deflated_ = 0;
  send(60 * kMiB, 12e6);
  EXPECT_LT(deflated_, 20 * kMiB);
}

TEST_F(PaceTest, WhoCannotCompressWellInTimeCompressesFast) {
  deflates_ = 30e6;
  ratio_ = 0.1;
  send(60 * kMiB, 3e6);
  EXPECT_EQ(pace_.level(), wire::Deflater::kFast);
}

TEST_F(PaceTest, WhatCannotBeCompressedGoesAsItIsForAWhile) {
  ratio_ = 1.001;
  send(60 * kMiB, 2.5e6);
  EXPECT_LT(deflated_, kMiB);
  ratio_ = 0.25;
  send(20 * kMiB, 2.5e6);
  deflated_ = 0;
  send(20 * kMiB, 2.5e6);
  EXPECT_EQ(deflated_, 20 * kMiB);
}

// A measurement of a fast line takes a few milliseconds, and in those a process may have no processor.
TEST_F(PaceTest, AMomentWithoutAnswersIsNoSlowLine) {
  const auto answer_at_once_but_for = [&](std::chrono::milliseconds pause) {
    const std::vector<std::uint32_t> numbers = send_measured();
    ASSERT_GE(numbers.size(), 5U);
    for (const std::uint32_t number : numbers) {
      now_ += number == numbers[2] ? pause : std::chrono::milliseconds(0);
      pace_.passed(number, now_);
    }
  };
  answer_at_once_but_for(std::chrono::milliseconds(20));
  EXPECT_TRUE(pace_.measures());  // again, at once
  answer_at_once_but_for(std::chrono::milliseconds(0));
  answer_at_once_but_for(std::chrono::milliseconds(0));
  EXPECT_FALSE(pace_.measures());
  EXPECT_EQ(pace_.level(), 0);
}

// The same on a slow line: what has waited for the other side comes all at once.
TEST_F(PaceTest, AnswersThatComeLateAndAllAtOnceAreNoFastLine) {
  const std::vector<std::uint32_t> numbers = send_measured();
  now_ += std::chrono::milliseconds(50);
  for (const std::uint32_t number : numbers) {
    pace_.passed(number, now_);
  }
  send(40 * kMiB, 12e6);
  EXPECT_GT(deflated_, 38 * kMiB);
}

TEST_F(PaceTest, AnswersThatNobodyAskedForAreAnError) {
  EXPECT_THROW(pace_.passed(1, now_), wire::ProtocolError);
  pace_.wrote(kMiB);
  ASSERT_TRUE(pace_.wants_probe());
  const std::uint32_t number = pace_.probe(now_);
  EXPECT_THROW(pace_.passed(number + 1, now_), wire::ProtocolError);
  pace_.passed(number, now_);
  EXPECT_THROW(pace_.passed(number, now_), wire::ProtocolError);
}

}  // namespace
}  // namespace execnet::core
