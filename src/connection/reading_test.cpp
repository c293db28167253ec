// The roles of reading and writing alone, with a loop that is stopped: nothing happens but what the test does.
#include "connection/reading.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/syscall.hpp"
#include "connection/writing.hpp"

namespace execnet::core {
namespace {

std::string frame(std::uint32_t channel, std::string_view payload) {
  const auto header = wire::pack(
      {.type = wire::FrameType::kData, .channel = channel, .length = static_cast<std::uint32_t>(payload.size())});
  return std::string(header.data(), header.size()).append(payload);
}

std::shared_ptr<loop::Loop> stopped_loop() {
  auto loop = std::make_shared<loop::Loop>();
  loop->stop();
  return loop;
}

base::Wait at_once() { return {.deadline = base::Clock::now()}; }

class RolesTest : public ::testing::Test, private Reading::Receiver, private Writing::Sender {
 protected:
  RolesTest() : RolesTest(base::socket_pair()) {}

  void say(std::string_view bytes) {
    ASSERT_EQ(::write(there_.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  // What is under way to the other side.
  std::string heard() {
    std::string bytes(std::size_t{1} << 20, '\0');
    const ssize_t count = ::recv(there_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    bytes.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    return bytes;
  }

  base::Fd there_;
  std::mutex mutex_;
  Link link_;
  Roles roles_{link_, stopped_loop(), mutex_};
  Waits waits_;
  Reading reading_{link_, roles_, waits_, *this, false};
  Writing writing_{link_, roles_, waits_, reading_, *this};
  Lock lock_{mutex_};
  std::vector<std::uint32_t> came_;        // channels of the messages that came
  std::vector<std::uint32_t> taken_back_;  // the same of those that were taken back

 private:
  explicit RolesTest(std::pair<base::Fd, base::Fd> sockets)
      : there_(std::move(sockets.second)), link_(std::move(sockets.first)) {}

  void take_in(Lock&, Incoming&& incoming) override {
    for (const wire::Message& message : incoming.messages) {
      came_.push_back(message.channel);
    }
    if (incoming.ended) {
      reading_.end();
    }
  }
  void on_taken_back(Lock&, const Outgoing& message) override { taken_back_.push_back(message.channel); }
};

TEST_F(RolesTest, WhoWaitsReadsAndPassesTheReadingOn) {
  reading_.arm();
  EXPECT_EQ(roles_.reader, Reader::kArmed);
  say(frame(1, "item"));
  EXPECT_TRUE(reading_.wait_until(lock_, this, {}, [&] {
    EXPECT_TRUE(lock_.owns_lock());
    return !came_.empty();
  }));
  EXPECT_EQ(came_, std::vector<std::uint32_t>{1});
  EXPECT_EQ(roles_.reader, Reader::kNone) << "the loop takes it back when nobody has read for a while";
}

TEST_F(RolesTest, AWaitEndsAtItsDeadline) {
  EXPECT_FALSE(reading_.wait_until(lock_, this, at_once(), [] { return false; }));
  EXPECT_TRUE(lock_.owns_lock());
}

TEST_F(RolesTest, WhatIsThereAlreadyIsNotWaitedFor) {
  EXPECT_TRUE(reading_.wait_until(lock_, this, at_once(), [] { return true; }));
  EXPECT_EQ(roles_.reader, Reader::kNone);
}

TEST_F(RolesTest, TheLoopReadsOnlyWhatItIsToWatchFor) {
  say(frame(1, "item"));
  reading_.on_readable(lock_);
  EXPECT_TRUE(came_.empty()) << "nobody has armed it";
  reading_.arm();
  reading_.on_readable(lock_);
  EXPECT_EQ(came_.size(), 1U);
  EXPECT_EQ(roles_.reader, Reader::kArmed);
}

TEST_F(RolesTest, AfterTheEndNobodyReads) {
  there_.reset();
  reading_.arm();
  reading_.on_readable(lock_);
  EXPECT_EQ(roles_.reader, Reader::kEnded);
  reading_.settle();
  EXPECT_EQ(roles_.reader, Reader::kEnded);
}

TEST_F(RolesTest, TheCallerWrites) {
  EXPECT_EQ(writing_.send(lock_, wire::FrameType::kData, 1, base::Buffer("item"), {}), Writing::Sent::kYes);
  EXPECT_EQ(heard(), frame(1, "item"));
  EXPECT_EQ(roles_.writer, Writer::kNone);
}

TEST_F(RolesTest, WhatIsNotUrgentGoesOutWithTheNextOrWhenThereIsMuch) {
  writing_.post_reply_later(lock_, wire::FrameType::kClose, 1);
  EXPECT_EQ(heard(), "");
  EXPECT_EQ(writing_.unread_replies(), 1U);
  writing_.post(lock_, wire::FrameType::kClose, 3);
  EXPECT_EQ(heard().size(), 2 * wire::kHeaderSize);
  EXPECT_EQ(writing_.unread_replies(), 0U);
  for (std::uint32_t i = 0; i < 1000; ++i) {
    writing_.post_reply_later(lock_, wire::FrameType::kClose, i * 2 + 1);
  }
  EXPECT_LT(writing_.unread_replies(), 100U);
}

TEST_F(RolesTest, ThePostsOfAPeerThatDoesNotReadAreTheLoops) {
  while (roles_.writer == Writer::kNone) {
    writing_.post(lock_, wire::FrameType::kData, 1, base::Buffer(std::string(100'000, 'x')));
  }
  EXPECT_EQ(roles_.writer, Writer::kLoop);
  while (roles_.writer == Writer::kLoop && !heard().empty()) {
    writing_.on_writable(lock_);
  }
  EXPECT_EQ(roles_.writer, Writer::kNone);
}

TEST_F(RolesTest, AMessageThatIsLateIsTakenBack) {
  while (roles_.writer == Writer::kNone) {
    writing_.post(lock_, wire::FrameType::kData, 1, base::Buffer(std::string(100'000, 'x')));
  }
  for (int i = 0; i < 10; ++i) {  // more than is cut into frames ahead
    writing_.post(lock_, wire::FrameType::kData, 1, base::Buffer(std::string(100'000, 'x')));
  }
  EXPECT_EQ(writing_.send(lock_, wire::FrameType::kData, 3, base::Buffer("late"), at_once()), Writing::Sent::kLate);
  EXPECT_EQ(taken_back_, std::vector<std::uint32_t>{3});
  EXPECT_EQ(roles_.writer, Writer::kLoop) << "it has the rest to write again";
}

TEST_F(RolesTest, WhatWaitsInTheOutboxDoesNotSlowASenderDown) {
  while (roles_.writer == Writer::kNone) {
    writing_.post(lock_, wire::FrameType::kData, 1, base::Buffer(std::string(100'000, 'x')));
  }
  // With a look at the whole queue for each batch this takes minutes.
  for (std::uint32_t i = 0; i < 300'000; ++i) {
    writing_.post(lock_, wire::FrameType::kClose, i * 2 + 3);
  }
  while (roles_.writer == Writer::kLoop && !heard().empty()) {
    writing_.on_writable(lock_);
  }
  EXPECT_EQ(roles_.writer, Writer::kNone);
}

TEST_F(RolesTest, NothingIsSentAfterTheEnd) {
  writing_.end(lock_);
  EXPECT_EQ(writing_.send(lock_, wire::FrameType::kData, 1, base::Buffer("item"), {}), Writing::Sent::kBroken);
  writing_.post(lock_, wire::FrameType::kClose, 1);
  EXPECT_EQ(heard(), "");
}

}  // namespace
}  // namespace execnet::core
