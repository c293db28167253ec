#include "loop/loop.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "base/syscall.hpp"
#include "loop/waiter.hpp"

namespace execnet::loop {
namespace {

using std::chrono::milliseconds;
constexpr std::chrono::seconds kPatience{20};

// True when the promise was kept in time.
template <typename T>
bool comes(std::future<T>& future) {
  return future.wait_for(kPatience) == std::future_status::ready;
}

TEST(Loop, TellsWhenADescriptorIsReadable) {
  auto [read_end, write_end] = base::make_pipe();
  std::promise<char> seen;
  auto future = seen.get_future();
  Loop loop;
  loop.watch(read_end.get(), kRead, [&, fd = read_end.get()](std::uint32_t ready) {
    char byte = 0;
    if ((ready & kRead) != 0 && ::read(fd, &byte, 1) == 1) {
      seen.set_value(byte);
    }
  });
  ASSERT_EQ(::write(write_end.get(), "x", 1), 1);
  ASSERT_TRUE(comes(future));
  EXPECT_EQ(future.get(), 'x');
}

TEST(Loop, SaysNothingOfADescriptorWithoutInterestEvenWhenTheOtherEndHangsUp) {
  auto [read_end, write_end] = base::make_pipe();
  std::atomic<int> calls = 0;
  Loop loop;
  const auto id = loop.watch(read_end.get(), kRead, [&](std::uint32_t) { ++calls; });
  loop.set_interest(id, 0);
  write_end.reset();
  std::promise<void> turned;
  auto future = turned.get_future();
  loop.call_after(milliseconds(20), [&] { turned.set_value(); });
  ASSERT_TRUE(comes(future));
  EXPECT_EQ(calls, 0);

  std::promise<void> told;
  auto told_future = told.get_future();
  loop.unwatch(id);
  loop.watch(read_end.get(), kRead, [&, done = false](std::uint32_t) mutable {
    if (!std::exchange(done, true)) {
      told.set_value();
    }
  });
  EXPECT_TRUE(comes(told_future));
}

TEST(Loop, RunsTimersInTheOrderOfTheirTimes) {
  std::promise<std::string> order;
  auto future = order.get_future();
  std::string so_far;
  Loop loop;
  loop.call_after(milliseconds(400), [&] { order.set_value(so_far + "c"); });
  loop.call_after(milliseconds(200), [&] { so_far += "b"; });
  loop.call_after(milliseconds(0), [&] { so_far += "a"; });
  ASSERT_TRUE(comes(future));
  EXPECT_EQ(future.get(), "abc");
}

TEST(Loop, ACancelledTimerDoesNotRun) {
  std::atomic<bool> ran = false;
  std::promise<void> later;
  auto future = later.get_future();
  Loop loop;
  const auto id = loop.call_after(milliseconds(200), [&] { ran = true; });
  loop.call_after(milliseconds(220), [&] { later.set_value(); });
  loop.cancel(id);
  ASSERT_TRUE(comes(future));
  EXPECT_FALSE(ran);
}

TEST(Loop, StopsWithTimersAndWatchesPendingAndIgnoresLaterOnes) {
  auto [read_end, write_end] = base::make_pipe();
  auto held = std::make_shared<int>(1);
  const std::weak_ptr<int> weak = held;
  Loop loop;
  loop.watch(read_end.get(), kRead, [held](std::uint32_t) {});
  loop.call_after(std::chrono::hours(1), [held] {});
  held.reset();
  loop.stop();
  EXPECT_TRUE(weak.expired());
  loop.call_after(milliseconds(0), [] { FAIL() << "ran after stop"; });
  loop.stop();
}

// As static objects of a program do, after everything that is thread_local.
TEST(Waiter, ItIsThereForDestructorsThatComeLate) {
  struct Late {
    bool* woken = nullptr;
    ~Late() {
      if (woken != nullptr) {
        const Waiter& waiter = Waiter::of_this_thread();
        waiter.wake();
        pollfd entry{waiter.fd(), POLLIN, 0};
        *woken = ::poll(&entry, 1, 0) == 1 && entry.revents == POLLIN;
      }
    }
  };
  bool woken = false;
  std::thread([&] {
    thread_local Late late;
    late.woken = &woken;
    Waiter::of_this_thread().clear();
  }).join();
  EXPECT_TRUE(woken);
}

TEST(Waiter, AWakeUpBeforeTheSleepIsNotLost) {
  const Waiter& waiter = Waiter::of_this_thread();
  std::thread([&] { waiter.wake(); }).join();
  pollfd fds{waiter.fd(), POLLIN, 0};
  EXPECT_TRUE(base::poll_until({&fds, 1}, {.deadline = base::Clock::now() + kPatience}));
  waiter.clear();
  EXPECT_FALSE(base::poll_until({&fds, 1}, {.deadline = base::Clock::now()}));
}

// The wake-up of stop() must not be taken for that of a timer that was set just before.
TEST(Loop, StopsAlsoWhileItIsAboutToNoticeATimer) {
  for (int round = 0; round < 10; ++round) {
    auto [read_end, write_end] = base::make_pipe();
    Loop loop;
    std::promise<void> busy;
    std::promise<void> timer_is_set;
    const auto is_stopping = [&] {
      try {
        loop.watch(-1, kRead, {});
        return true;
      } catch (const std::system_error&) {
        return false;  // it tried to, and that is no descriptor
      }
    };
    loop.watch(read_end.get(), kRead, [&, fd = read_end.get()](std::uint32_t) {
      char byte = 0;
      EXPECT_EQ(::read(fd, &byte, 1), 1);
      if (byte == '1') {
        busy.set_value();
        timer_is_set.get_future().wait();
        return;
      }
      while (!is_stopping()) {
      }
      for (int i = 0; i < 1000; ++i) {
        std::this_thread::yield();  // its wake-up comes right after, and before the timer's is taken
      }
    });
    ASSERT_EQ(::write(write_end.get(), "1", 1), 1);
    busy.get_future().wait();
    ASSERT_EQ(::write(write_end.get(), "2", 1), 1);
    loop.call_after(std::chrono::minutes(1), [] {});
    timer_is_set.set_value();
    auto stopped = std::async(std::launch::async, [&] { loop.stop(); });
    ASSERT_EQ(stopped.wait_for(kPatience), std::future_status::ready);
  }
}

}  // namespace
}  // namespace execnet::loop
