#include "connection/waits.hpp"

#include <gtest/gtest.h>
#include <poll.h>

namespace execnet::core {
namespace {

bool was_woken(const Waits::Thread& thread) {
  pollfd fd{thread.waiter().fd(), POLLIN, 0};
  return ::poll(&fd, 1, 0) == 1;
}

// All stand for the thread of the test, so one is looked at at a time.
class WaitsTest : public ::testing::Test {
 protected:
  ~WaitsTest() override { loop::Waiter::of_this_thread().clear(); }

  Waits waits_;
  const int one_ = 0;
  const int other_ = 0;
};

TEST_F(WaitsTest, ATouchWakesThoseThatWaitForTheTopic) {
  Waits::Thread thread(&one_);
  waits_.enter(thread);
  thread.falls_asleep();
  waits_.touch(&other_);
  EXPECT_FALSE(was_woken(thread));
  waits_.touch(&one_);
  EXPECT_TRUE(was_woken(thread));
  waits_.leave(thread);
}

TEST_F(WaitsTest, WhoIsAwakeIsNotWokenAgain) {
  Waits::Thread thread(&one_);
  waits_.enter(thread);
  waits_.touch(&one_);
  EXPECT_FALSE(was_woken(thread)) << "it will look before it sleeps";
  thread.falls_asleep();
  waits_.touch_all();
  waits_.touch_all();
  EXPECT_TRUE(was_woken(thread));
  EXPECT_EQ(waits_.woken(), 1U);
  waits_.leave(thread);
}

TEST_F(WaitsTest, OnlyWhoDoesNotStandBackIsWokenToRead) {
  Waits::Thread thread(&one_);
  waits_.enter(thread);
  thread.falls_asleep();
  EXPECT_TRUE(waits_.has_readers());
  thread.stand_back();
  EXPECT_FALSE(waits_.has_readers());
  waits_.wake_a_reader();
  EXPECT_FALSE(was_woken(thread));
  waits_.touch(&one_);
  EXPECT_TRUE(was_woken(thread)) << "its own message wakes it all the same";
  EXPECT_EQ(waits_.woken(), 0U) << "which is not for a reader";
  waits_.leave(thread);
}

// A hub that notes what it was asked to wait for, and rings meanwhile.
class RingingHub final : public base::Hub {
 public:
  explicit RingingHub(Waits& waits, const void* topic) : waits_(waits), topic_(topic) {}
  void wait_readable(int fd, const base::Deadline&) const override {
    waits_.touch(topic_);
    pollfd readable{fd, POLLIN, 0};
    rung = ::poll(&readable, 1, 0) == 1;
  }

  mutable bool rung = false;

 private:
  Waits& waits_;
  const void* const topic_;
};

TEST_F(WaitsTest, AGreenletIsRungForItsTopic) {
  std::mutex mutex;
  Lock lock(mutex);
  Waits::Greenlet greenlet(waits_, lock, &one_);
  EXPECT_TRUE(waits_.has_greenlets());
  const RingingHub other(waits_, &other_);
  greenlet.sleep({.hub = &other});
  EXPECT_FALSE(other.rung);
  const RingingHub own(waits_, &one_);
  greenlet.sleep({.hub = &own});
  EXPECT_TRUE(own.rung);
  EXPECT_TRUE(lock.owns_lock());
}

}  // namespace
}  // namespace execnet::core
