#include "loop/loop.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/syscall.hpp"
#include "loop/waiter.hpp"
#include "processes.hpp"
#include "resource_limits.hpp"

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
      const auto token = std::make_shared<int>();
      const Loop::Id timer = loop.call_after(std::chrono::minutes(1), [token] {});
      const bool was_dropped = token.use_count() == 1;
      loop.cancel(timer);
      return was_dropped;
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

// --- Where the system has no more ---

TEST(Loop, SaysThatItHasNoDescriptorsWhenItIsStarted) {
  Loop loop;
  const execnet::testing::NoDescriptors none;
  try {
    loop.start();
    FAIL() << "there are some";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code().value(), EMFILE);
    EXPECT_NE(std::string(error.what()).find("ulimit -n"), std::string::npos) << error.what();
  }
}

TEST(Loop, OnceStartedNeedsNoMoreDescriptors) {
  auto [read_end, write_end] = base::make_pipe();
  Loop loop;
  loop.start();
  const execnet::testing::NoDescriptors none;
  std::promise<void> told;
  std::promise<void> late;
  Loop::Id watch = 0;
  watch = loop.watch(read_end.get(), 0, [&](std::uint32_t) {
    loop.unwatch(watch);
    told.set_value();
  });
  loop.set_interest(watch, kRead);
  loop.call_after(milliseconds(1), [&] { late.set_value(); });
  ASSERT_EQ(::write(write_end.get(), "x", 1), 1);
  auto future = told.get_future();
  auto late_future = late.get_future();
  EXPECT_TRUE(comes(future));
  EXPECT_TRUE(comes(late_future));
  loop.stop();
}

// As it is when there is no room for it any more: of a file epoll wants to know nothing.
TEST(Loop, WatchesWhatEpollDoesNotTake) {
  const base::Fd file(::memfd_create("test", MFD_CLOEXEC));
  auto [read_end, write_end] = base::make_pipe();
  Loop loop;
  std::promise<std::uint32_t> of_file;
  std::promise<void> of_pipe;
  auto file_future = of_file.get_future();
  auto pipe_future = of_pipe.get_future();
  Loop::Id watch = 0;
  std::atomic<int> calls = 0;
  loop.watch(read_end.get(), kRead, [&, fd = read_end.get()](std::uint32_t) {
    char byte = 0;
    EXPECT_EQ(::read(fd, &byte, 1), 1);
    of_pipe.set_value();
  });
  watch = loop.watch(file.get(), 0, [&](std::uint32_t ready) {
    ++calls;
    loop.set_interest(watch, 0);
    of_file.set_value(ready);
  });
  loop.set_interest(watch, kWrite);
  ASSERT_TRUE(comes(file_future));
  EXPECT_EQ(file_future.get(), kWrite);
  ASSERT_EQ(::write(write_end.get(), "x", 1), 1);
  EXPECT_TRUE(comes(pipe_future));
  loop.stop();
  EXPECT_EQ(calls, 1);
}

TEST(Loop, AHandlerThatThrowsIsCalledNoMoreAndTheOthersAre) {
  auto [read_end, write_end] = base::make_pipe();
  ASSERT_EQ(::write(write_end.get(), "x", 1), 1);
  Loop loop;
  std::atomic<int> calls = 0;
  loop.watch(read_end.get(), kRead, [&](std::uint32_t) {
    ++calls;
    throw std::runtime_error("as a test wants it");
  });
  std::promise<void> late;
  auto future = late.get_future();
  loop.call_after(milliseconds(1), [] { throw std::runtime_error("so does this"); });
  loop.call_after(milliseconds(20), [&] { late.set_value(); });
  EXPECT_TRUE(comes(future));
  loop.stop();
  EXPECT_EQ(calls, 1);
}

// The status of a process that closes all descriptors, as daemons do, once its loop thread waits for `watched`. Whoever
// has a watch is told once, and finds its descriptor closed. Who opens others has the numbers of the loop's.
int status_without_descriptors(int watched, bool opens_others = false) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    std::atomic<int> calls = 0;
    {
      Loop loop;
      loop.watch(watched, kRead, [&](std::uint32_t) { ++calls; });
      std::promise<pid_t> thread;
      loop.call_after(milliseconds(0), [&] { thread.set_value(::gettid()); });
      const pid_t loop_thread = thread.get_future().get();
      while (!execnet::testing::sleeps(loop_thread)) {
        std::this_thread::yield();
      }
      ::close_range(3, ~0U, 0);
      if (opens_others) {
        for (int i = 0; i < 20; ++i) {
          calls += ::eventfd(0, 0) < 0 ? 100 : 0;
        }
        loop.stop();
        ::_exit(calls);
      }
      std::promise<void> late;
      auto future = late.get_future();
      loop.call_after(milliseconds(100), [&] { late.set_value(); });
      future.wait();
      loop.stop();
    }
    ::_exit(calls == 1 ? 0 : 1);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

TEST(Loop, GoesOnWhenTheProgramHasClosedAllDescriptors) {
  const auto [read_end, write_end] = base::make_pipe();
  EXPECT_EQ(status_without_descriptors(read_end.get()), 0);
}

TEST(Loop, StopsWhenTheProgramHasClosedAllDescriptorsAndHasOpenedOthers) {
  const auto [read_end, write_end] = base::make_pipe();
  EXPECT_EQ(status_without_descriptors(read_end.get(), true), 0);
}

TEST(Loop, GoesOnWithoutDescriptorsWhenItIsNotInEpoll) {
  std::vector<base::Fd> sets;  // so many, one in the other, are too many for epoll
  for (int i = 0; i < 6; ++i) {
    base::Fd set(::epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{};
    event.events = EPOLLIN;
    if (!sets.empty() && ::epoll_ctl(set.get(), EPOLL_CTL_ADD, sets.back().get(), &event) != 0) {
      break;
    }
    sets.push_back(std::move(set));
  }
  ASSERT_LT(sets.size(), 6);
  EXPECT_EQ(status_without_descriptors(sets.back().get()), 0);
}

TEST(StartWaitingThread, GivesTheThreadItsWaiter) {
  std::promise<int> fd;
  auto future = fd.get_future();
  std::promise<void> may_run;
  std::thread thread = start_waiting_thread([&] {
    may_run.get_future().wait();
    fd.set_value(Waiter::of_this_thread().fd());
  });
  const execnet::testing::NoDescriptors none;
  may_run.set_value();
  EXPECT_GE(future.get(), 0);
  thread.join();
}

TEST(StartWaitingThread, SaysThatThereAreNoDescriptors) {
  const execnet::testing::NoDescriptors none;
  EXPECT_THROW(start_waiting_thread([] {}), std::system_error);
}

}  // namespace
}  // namespace execnet::loop
