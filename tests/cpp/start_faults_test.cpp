// A start that fails at any system call of the thread that starts, or for want of memory anywhere: it says so, and
// nothing is left, no zombie, no descriptor, no thread.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <execnet/error.hpp>
#include <execnet/group.hpp>
#include <filesystem>
#include <iterator>
#include <optional>
#include <string>
#include <system_error>
#include <thread>

#include "faulty_calls.hpp"
#include "scarce_memory.hpp"
#include "soak.hpp"

namespace execnet {
namespace {

using namespace std::chrono_literals;

std::ptrdiff_t count(const char* directory) {
  return std::distance(std::filesystem::directory_iterator(directory), std::filesystem::directory_iterator());
}

struct Belongings {
  std::ptrdiff_t descriptors = count("/proc/self/fd");
  std::ptrdiff_t threads = count("/proc/self/task");

  // What there is besides. A thread that was joined takes a moment to be gone.
  [[nodiscard]] std::string left() const {
    std::string text;
    for (const auto deadline = std::chrono::steady_clock::now() + 20s;;) {
      const Belongings now;
      text = now.descriptors > descriptors                              ? "a descriptor"
             : now.threads > threads                                    ? "a thread"
             : ::waitpid(-1, nullptr, WNOHANG) != -1 || errno != ECHILD ? "a child"
                                                                        : "";
      if (text.empty() || std::chrono::steady_clock::now() > deadline) {
        return text;
      }
      std::this_thread::yield();
    }
  }
};

class StartFaults : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (const std::string why = testing::FaultyCalls::unavailable(); !why.empty()) {
      GTEST_SKIP() << "no system calls can be made to fail here: " << why;
    }
  }
};

TEST_P(StartFaults, LeaveNothing) {
  constexpr int kClone3 = 435, kPidfdOpen = 434, kMost = 8;
  const struct {
    int call;
    int error;
  } faults[] = {{SYS_pipe2, EMFILE},        {SYS_socketpair, EMFILE}, {SYS_epoll_create1, EMFILE},
                {SYS_epoll_ctl, ENOSPC},    {SYS_eventfd2, EMFILE},   {SYS_fcntl, ENOMEM},
                {SYS_setsockopt, ENOMEM},   {SYS_openat, EMFILE},     {SYS_sendmsg, ENOBUFS},
                {SYS_memfd_create, EMFILE}, {kPidfdOpen, EMFILE},     {kClone3, EAGAIN}};
  int failed = 0;
  for (const auto& [call, error] : faults) {
    for (int which = 1; which <= kMost; ++which) {
      const Belongings before;
      const auto began = std::chrono::steady_clock::now();
      std::atomic<pid_t> starter = 0;
      std::atomic<int> calls = 0;
      std::string said;
      {
        const testing::FaultyCalls faulty(
            call, [&, error = error](pid_t thread, int) { return thread == starter && ++calls == which ? error : 0; },
            [&] {
              starter = ::gettid();
              Group group;
              try {
                group.makegateway(GetParam());
              } catch (const std::exception& thrown) {
                said = thrown.what();
              }
            });
      }
      failed += said.empty() ? 0 : 1;
      EXPECT_LT(std::chrono::steady_clock::now() - began, 40s)
          << "call " << call << " has failed, the " << which << "-th time: " << said;
      ASSERT_EQ(before.left(), "") << "is left where call " << call << " has failed, the " << which
                                   << "-th time: " << said;
      if (calls < which) {
        break;  // there are no more
      }
    }
  }
  EXPECT_GT(failed, 5);
}

// Whether a child is left, which nobody collects. One that was killed takes a moment to be gone.
bool keeps_children() {
  siginfo_t info{};
  for (const auto deadline = std::chrono::steady_clock::now() + 20s;;) {
    if (::waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
      return false;
    }
    if (std::chrono::steady_clock::now() > deadline) {
      return true;
    }
    std::this_thread::yield();
  }
}

class StartMemory : public ::testing::TestWithParam<const char*> {};

// From the first allocation to the last: that one fails, or that one and all that come after it.
TEST_P(StartMemory, ThatIsShortLeavesNothing) {
  if (!testing::ScarceMemory::is_possible()) {
    GTEST_SKIP() << "a sanitizer has the allocations";
  }
  const bool has_server = std::string(GetParam()).ends_with("preload");  // which may end with the group
  Group{GetParam()}.terminate(5s);  // what is made once for a thread is there from here on
  int told = 0;
  for (const long count : {1L, testing::ScarceMemory::kAll}) {
    const long stride = count == 1 && testing::soak_runs(1) == 1 ? 5 : 1;
    bool any = true;
    for (long which = 1; any; which += stride) {
      SCOPED_TRACE(std::to_string(which) + "-th allocation, " + std::to_string(count) + " fail");
      const Belongings before;
      const auto began = std::chrono::steady_clock::now();
      {
        std::optional<Group> group(std::in_place);
        bool failed = false;
        try {
          const testing::ScarceMemory memory(which, count);
          group->makegateway(GetParam());
        } catch (const std::exception&) {  // of any type: there may be no memory for what it was to say
          failed = true;
        }
        any = testing::ScarceMemory::failed() > 0;
        told += failed ? 1 : 0;
        if (failed && !has_server) {
          ASSERT_FALSE(keeps_children()) << "a process is left while its group lives on";
        }
      }
      EXPECT_LT(std::chrono::steady_clock::now() - began, 40s);
      ASSERT_EQ(before.left(), "") << "is left";
    }
  }
  EXPECT_GT(told, 20);
}

INSTANTIATE_TEST_SUITE_P(Specs, StartMemory,
                         ::testing::Values("popen//python=python3", "popen//python=python3//preload"));

INSTANTIATE_TEST_SUITE_P(Specs, StartFaults,
                         ::testing::Values("popen//python=python3", "popen//python=python3//preload",
                                           "popen//python=/bin/false"));

}  // namespace
}  // namespace execnet
