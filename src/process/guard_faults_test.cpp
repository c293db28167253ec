// A guard that is refused system calls: whichever, how and when, nothing of what it guards is left, and it has ended.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "base/syscall.hpp"
#include "faulty_calls.hpp"
#include "process/spawn.hpp"

namespace execnet::process {
namespace {

using namespace std::chrono_literals;
using testing::FaultyCalls;

base::Wait soon() { return {.deadline = base::Clock::now() + 20s}; }

#ifdef SYS_poll
constexpr int kPoll = SYS_poll;
#else
constexpr int kPoll = SYS_ppoll;
#endif

bool is_guard(pid_t pid) { return testing::program_of(pid).starts_with("/memfd:execnet-guard"); }

// How often each of the guards, by its number, has made a call.
using Calls = std::map<std::pair<pid_t, int>, int>;

// A program that leaves much behind: somebody in a session of his own, and a daemon. All hold a pipe.
class Life {
 public:
  // How it ends, if it has begun.
  enum class End { kKilled, kByItself, kUntouched };

  // With what the n-th call of its kind of a guard fails, counted from 1; 0: it does not.
  using Refusal = std::function<int(int call, int which)>;
  Life(int call, const Refusal& refusal, End end) {
    auto [in, out] = base::make_pipe();
    auto [command_in, command_out] = base::make_pipe();
    const base::Fd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));  // for what the loader complains of
    std::atomic<pid_t> starter = 0;
    const FaultyCalls faulty(
        call,
        [&](pid_t pid, int number) {
          return pid != starter && is_guard(pid) ? refusal(number, ++calls[{pid, number}]) : 0;
        },
        [&, pipe = out.get(), command = command_in.get(), nowhere = null.get()] {
          starter = ::gettid();
          try {
            process = spawn({.argv = {"/bin/sh", "-c",
                                      "trap '' TERM HUP INT; setsid sleep 1000 & (setsid sleep 1000 &); "
                                      "read line <&4; exit 7"},
                             .set_env = {},
                             .fds = {{pipe, 3}, {command, 4}, {nowhere, 2}}});
          } catch (const std::system_error& error) {
            said = error.what();
          }
        });
    out.reset();
    if (process && end == End::kKilled) {
      process->kill_tree();
    } else if (end == End::kByItself) {
      command_out.reset();
    }
    if (process) {
      status = process->wait(soon());
    }
    pollfd left{in.get(), POLLIN, 0};
    is_gone = base::poll_until(std::span(&left, 1), soon());
    process.reset();
  }

  // What is wrong with how it ended.
  [[nodiscard]] std::string wrong() const {
    return !is_gone                                                  ? "something is left"
           : said.empty() && !status                                 ? "its guard has not ended"
           : ::waitpid(-1, nullptr, WNOHANG) >= 0 || errno != ECHILD ? "a zombie is left"
                                                                     : "";
  }

  Calls calls;
  std::shared_ptr<Process> process;
  std::string said;  // why it could not be started
  std::optional<ExitStatus> status;
  bool is_gone = false;
};

class GuardFaults : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = FaultyCalls::unavailable(); !why.empty()) {
      GTEST_SKIP() << "no system calls can be made to fail here: " << why;
    }
  }
};

// The system calls of guards, each with how often one of them makes it in a life.
std::map<int, int> calls_of_a_life(Life::End end) {
  const Life life(-1, [](int, int) { return 0; }, end);
  EXPECT_EQ(life.wrong(), "");
  EXPECT_EQ(life.said, "");
  std::map<int, int> most;
  for (const auto& [key, count] : life.calls) {
    most[key.second] = std::max(most[key.second], count);
  }
  most.erase(SYS_exit_group);  // it cannot fail
  // Without it orphans go elsewhere, as guard.cpp says.
  most.erase(SYS_prctl);
  return most;
}

void refuse_each_call(Life::End end) {
  const bool long_form = std::getenv("EXECNET_SOAK_RUNS") != nullptr;
  const auto calls = calls_of_a_life(end);
  EXPECT_GT(calls.size(), 20U);
  int lives = 0;
  for (const auto& [call, count] : calls) {
    for (const int error : {EPERM, EINTR, ENOSYS, EINVAL, ENOMEM}) {
      // All of them, then the n-th alone.
      const int most = long_form ? count : error == EPERM ? std::min(count, 4) : 0;
      for (int which = 0; which <= most; ++which) {
        const Life life(call, [&](int, int nth) { return which == 0 || which == nth ? error : 0; }, end);
        EXPECT_EQ(life.wrong(), "") << "call " << call << " fails with " << error << ", the " << which << "-th time; "
                                    << life.said;
        ++lives;
      }
    }
  }
  std::printf("soak: %d lives under guards that were refused a system call\n", lives);
}

TEST_F(GuardFaults, LeaveNothingWhenItIsKilled) { refuse_each_call(Life::End::kKilled); }

TEST_F(GuardFaults, LeaveNothingWhenTheProgramEnds) { refuse_each_call(Life::End::kByItself); }

// Nobody ends it but the guard. It may be so soon about it that there is no start.
TEST_F(GuardFaults, AreToldToTheCoordinator) {
  const Life no_poll(kPoll, [](int, int) { return EPERM; }, Life::End::kUntouched);
  EXPECT_EQ(no_poll.wrong(), "");
  if (no_poll.status) {
    EXPECT_EQ(no_poll.status->describe(),
              "killed by its guard, which could not watch it any more: Operation not permitted");
  } else {
    EXPECT_EQ(no_poll.said, "poll or waitid(in the guard of /bin/sh): Operation not permitted");
  }
  const Life no_signals(SYS_signalfd4, [](int, int) { return EMFILE; }, Life::End::kUntouched);
  EXPECT_EQ(no_signals.wrong(), "");
  EXPECT_NE(no_signals.said.find("signalfd"), std::string::npos) << no_signals.said;
  EXPECT_NE(no_signals.said.find("Too many open files"), std::string::npos) << no_signals.said;
}

TEST_F(GuardFaults, LeaveNothingWhereNoWayToWaitIsLeft) {
  const Life life(
      -1, [](int call, int) { return call == SYS_waitid || call == SYS_wait4 ? EPERM : 0; }, Life::End::kKilled);
  EXPECT_EQ(life.wrong(), "");
}

}  // namespace
}  // namespace execnet::process
