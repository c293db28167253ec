#include "base/wait.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <functional>
#include <limits>
#include <span>
#include <stdexcept>
#include <utility>

#include "base/syscall.hpp"
#include "resource_limits.hpp"

namespace execnet::base {
namespace {

TEST(Deadline, NoneOrAbsurdSecondsMeanForEverAndNegativeOnesMeanNow) {
  EXPECT_FALSE(deadline_after(std::nullopt));
  EXPECT_FALSE(deadline_after(Seconds(1e300)));
  EXPECT_FALSE(deadline_after(Seconds(std::numeric_limits<double>::infinity())));
  EXPECT_FALSE(deadline_after(Seconds(1e9)));
  EXPECT_TRUE(has_passed(deadline_after(Seconds(-5.0))));
  EXPECT_TRUE(has_passed(deadline_after(Seconds(-1e300))));
  EXPECT_TRUE(has_passed(deadline_after(Seconds(-std::numeric_limits<double>::infinity()))));
  EXPECT_FALSE(has_passed(deadline_after(Seconds(3600.0))));
  EXPECT_FALSE(has_passed(deadline_after(Seconds(999'999'999.0))));
}

TEST(Deadline, WhatIsNoNumberIsRefused) {
  EXPECT_THROW(deadline_after(Seconds(std::numeric_limits<double>::quiet_NaN())), std::invalid_argument);
}

TEST(PollUntil, EndsWhenTheDeadlineHasPassed) {
  auto [read_end, write_end] = make_pipe();
  pollfd fds{read_end.get(), POLLIN, 0};
  EXPECT_FALSE(poll_until({&fds, 1}, {.deadline = Clock::now()}));
  ASSERT_EQ(::write(write_end.get(), "x", 1), 1);
  EXPECT_TRUE(poll_until({&fds, 1}, {}));
}

// Lets things happen when something waits, and does not wait itself.
class EventfulHub final : public Hub {
 public:
  explicit EventfulHub(std::function<void()> event) : event_(std::move(event)) {}
  void wait_readable(int fd, const Deadline& /*deadline*/) const override {
    pollfd entry{fd, POLLIN, 0};
    EXPECT_EQ(::poll(&entry, 1, 0), 0);
    event_();
    EXPECT_EQ(::poll(&entry, 1, 0), 1);
  }

 private:
  std::function<void()> event_;
};

TEST(PollUntil, InAGreenletTheHubWaitsForAnyOfTheDescriptors) {
  auto [first, first_end] = make_pipe();
  auto [second, second_end] = make_pipe();
  std::array<pollfd, 2> fds{{{first.get(), POLLIN, 0}, {second.get(), POLLIN, 0}}};
  const EventfulHub hub([&] { ASSERT_EQ(::write(second_end.get(), "x", 1), 1); });
  EXPECT_FALSE(poll_until(fds, {.deadline = Clock::now(), .hub = &hub}));
  EXPECT_TRUE(poll_until(fds, {.hub = &hub}));
  EXPECT_EQ(fds[0].revents, 0);
  EXPECT_EQ(fds[1].revents, POLLIN);
}

TEST(PollUntil, ASignalRunsTheCallersCheckWhichMayThrow) {
  auto [read_end, write_end] = make_pipe();
  struct sigaction before{};
  struct sigaction action{};
  action.sa_handler = [](int) {};
  ::sigaction(SIGUSR1, &action, &before);
  pollfd fds{read_end.get(), POLLIN, 0};
  ::pthread_kill(::pthread_self(), SIGUSR1);  // before the sleep: found by the early look
  EXPECT_THROW(poll_until({&fds, 1}, {.interrupted = [] { throw std::runtime_error("stop"); }}), std::runtime_error);
  ::sigaction(SIGUSR1, &before, nullptr);
}

TEST(Check, NamesTheCallThatFailed) {
  try {
    check("read", [] { return ::read(-1, nullptr, 0); }, "fd -1");
    FAIL() << "did not throw";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code().value(), EBADF);
    EXPECT_NE(std::string(error.what()).find("read(fd -1)"), std::string::npos);
  }
}

// A program that wants no new descriptors may set its limit to nothing: poll(2) then refuses any that it is given.
TEST(PollUntil, WorksBelowTheLimitOfDescriptors) {
  auto [read_end, write_end] = make_pipe();
  auto [other, other_end] = make_pipe();
  std::array<pollfd, 3> fds{{{read_end.get(), POLLIN, 0}, {other_end.get(), POLLOUT, 0}, {-1, POLLIN, 0}}};
  const execnet::testing::Limit none(RLIMIT_NOFILE, 0);
  EXPECT_TRUE(poll_until(fds, {}));
  EXPECT_EQ(fds[0].revents, 0);
  EXPECT_EQ(fds[1].revents, POLLOUT);
  const std::span<pollfd> first(fds.data(), 1);
  EXPECT_FALSE(poll_until(first, {.deadline = Clock::now() + std::chrono::milliseconds(1)}));
  ASSERT_EQ(::write(write_end.get(), "x", 1), 1);
  EXPECT_TRUE(poll_until(first, {}));
  EXPECT_EQ(fds[0].revents, POLLIN);
  write_end.reset();
  read_end.reset();
  EXPECT_TRUE(poll_until(first, {}));
  EXPECT_EQ(fds[0].revents, POLLNVAL);
}

}  // namespace
}  // namespace execnet::base
