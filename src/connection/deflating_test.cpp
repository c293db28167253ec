// What would go over a line that the test takes for slow, and what the other side makes of it.
#include "connection/deflating.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "base/syscall.hpp"
#include "connection/frame_reader.hpp"
#include "outgoing.hpp"

namespace execnet::core {
namespace {

using testing::data_message;

class DeflatingTest : public ::testing::Test {
 protected:
  DeflatingTest() : DeflatingTest(base::socket_pair()) { reader_.expect_deflated(); }

  // Writes all that is there; the other side takes it in. `answers`: it answers the probes.
  void exchange(bool answers = true) {
    std::array<iovec, 64> parts;
    while (!outbox_.empty()) {
      if (deflating_.prepare(outbox_)) {
        wire_bytes_ += std::max<ssize_t>(deflating_.write(here_, nullptr), 0);
        for (const auto& done : deflating_.written(outbox_)) {
          EXPECT_TRUE(done->written);
        }
      } else {
        const std::size_t count = outbox_.gather(parts, deflating_.cut());
        deflating_.on_gathered(outbox_);
        const ssize_t written = here_.write(std::span(parts).first(count));
        wire_bytes_ += std::max<ssize_t>(written, 0);
        outbox_.written(static_cast<std::size_t>(std::max<ssize_t>(written, 0)));
      }
      take_in(answers);
    }
  }

  void take_in(bool answers) {
    while (reader_.has_more() || is_readable()) {
      Incoming incoming = reader_.read();
      ASSERT_FALSE(incoming.ended) << incoming.error;
      for (wire::Message& each : incoming.messages) {
        if (each.type == wire::FrameType::kProbe) {
          ++probes_;
          if (answers) {
            deflating_.passed(each.credit);
          }
        } else {
          messages_.push_back(std::move(each));
        }
      }
    }
  }

  [[nodiscard]] bool is_readable() const {
    pollfd there{there_.fd(), POLLIN, 0};
    return ::poll(&there, 1, 0) > 0;
  }

  Link here_;
  Link there_;
  FrameReader reader_{there_, false};
  Outbox outbox_;
  Deflating deflating_;
  std::vector<wire::Message> messages_;
  ssize_t wire_bytes_ = 0;
  int probes_ = 0;

 private:
  explicit DeflatingTest(std::pair<base::Fd, base::Fd> sockets)
      : here_(std::move(sockets.first)), there_(std::move(sockets.second)) {}
};

TEST_F(DeflatingTest, LittleGoesOutAsItIsAndIsNotMeasured) {
  for (int i = 0; i < 10; ++i) {
    outbox_.push(data_message(1, std::string(1000, 'x')));
    exchange();
  }
  EXPECT_EQ(messages_.size(), 10U);
  EXPECT_EQ(probes_, 0);
  EXPECT_EQ(wire_bytes_, 10'160);
}

// Nobody answers: nothing is known of the line.
TEST_F(DeflatingTest, WhatIsCompressedArrivesAsItWas) {
  const std::string text(std::size_t{1} << 20, 'x');
  for (std::uint32_t channel = 1; channel < 5; channel += 2) {
    outbox_.push(data_message(channel, text));
  }
  outbox_.push(data_message(7, "the last"));
  exchange(false);
  EXPECT_EQ(probes_, 5);
  EXPECT_LT(wire_bytes_, 500'000);
  ASSERT_EQ(messages_.size(), 3U);
  const auto of_channel = [&](std::uint32_t channel) {
    return std::find_if(messages_.begin(), messages_.end(), [&](const auto& each) { return each.channel == channel; });
  };
  EXPECT_EQ(of_channel(1)->payload.view(), text);
  EXPECT_EQ(of_channel(3)->payload.view(), text);
  EXPECT_EQ(of_channel(7)->payload.view(), "the last");
}

TEST_F(DeflatingTest, NoMoreIsCompressedOnCreditThanEightMegabytes) {
  outbox_.push(data_message(1, std::string(std::size_t{16} << 20, 'x')));
  exchange(false);
  EXPECT_GT(wire_bytes_, 7 << 20);
  EXPECT_LT(wire_bytes_, 9 << 20);
  EXPECT_EQ(messages_.size(), 1U);
}

TEST_F(DeflatingTest, WhatIsSmallNeverWaitsForMore) {
  outbox_.push(data_message(1, std::string(std::size_t{1} << 20, 'x')));
  exchange(false);
  messages_.clear();
  outbox_.push(data_message(3, "small"));
  exchange(false);
  ASSERT_EQ(messages_.size(), 1U);
  EXPECT_EQ(messages_[0].payload.view(), "small");
}

TEST_F(DeflatingTest, MessagesAreDoneWhenTheirUnitIsWritten) {
  outbox_.push(data_message(1, std::string(std::size_t{1} << 20, 'x')));
  exchange(false);
  const auto last = data_message(3, std::string(1000, 'y'));
  outbox_.push(last);
  ASSERT_TRUE(deflating_.prepare(outbox_));
  EXPECT_FALSE(outbox_.retract(last));  // it will be delivered whole
  EXPECT_FALSE(last->written);
  ASSERT_GT(deflating_.write(here_, nullptr), 0);
  EXPECT_EQ(deflating_.written(outbox_).size(), 1U);
  EXPECT_TRUE(last->written);
  EXPECT_TRUE(outbox_.empty());
}

// A frame of which a part is out as it is goes on before anything compressed does.
TEST_F(DeflatingTest, NoUnitComesWithinAFrame) {
  outbox_.push(data_message(1, std::string(std::size_t{1} << 20, 'x')));
  std::array<iovec, 64> parts;
  bool was_within = false;
  while (!outbox_.empty()) {
    const bool within = outbox_.within_piece();
    if (deflating_.prepare(outbox_)) {
      ASSERT_FALSE(within);
      deflating_.write(here_, nullptr);
      deflating_.written(outbox_);
    } else {
      const std::size_t count = outbox_.gather(parts, deflating_.cut());
      deflating_.on_gathered(outbox_);
      ASSERT_GT(count, 0U);
      parts[0].iov_len = std::min<std::size_t>(parts[0].iov_len, 10'001);
      outbox_.written(static_cast<std::size_t>(here_.write(std::span(parts).first(1))));
      was_within = was_within || outbox_.within_piece();
    }
    take_in(false);
  }
  EXPECT_TRUE(was_within);
  ASSERT_EQ(messages_.size(), 1U);
  EXPECT_EQ(messages_[0].payload.size(), std::size_t{1} << 20);
}

}  // namespace
}  // namespace execnet::core
