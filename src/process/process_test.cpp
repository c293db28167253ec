#include "process/process.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <string>
#include <vector>

#include "base/syscall.hpp"
#include "process/spawn.hpp"
#include "process/tree.hpp"

namespace execnet::process {
namespace {

using namespace std::chrono_literals;

base::Wait soon() { return {.deadline = base::Clock::now() + 20s}; }

std::shared_ptr<Process> shell(const std::string& command, std::vector<std::pair<int, int>> fds = {}) {
  return spawn({.argv = {"/bin/sh", "-c", command}, .set_env = {}, .fds = std::move(fds)});
}

bool is_readable(int fd) {
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  return base::poll_until(std::span(&entry, 1), soon());
}

char read_byte(int fd) {
  char byte = 0;
  EXPECT_TRUE(is_readable(fd)) << "nothing came in time";
  EXPECT_EQ(base::check("read", [&] { return ::read(fd, &byte, 1); }), 1);
  return byte;
}

// Reads what is there until every holder of the other end is gone; false when they are not in time.
bool reaches_end(int fd) {
  char bytes[4096];
  while (is_readable(fd)) {
    if (base::check("read", [&] { return ::read(fd, bytes, sizeof bytes); }) == 0) {
      return true;
    }
  }
  return false;
}

TEST(ExitStatus, IsDescribedInWords) {
  EXPECT_EQ(ExitStatus{.code = 3}.describe(), "exit status 3");
  EXPECT_EQ(ExitStatus{.signal = SIGKILL}.describe(), "killed by SIGKILL");
  EXPECT_EQ(ExitStatus{.signal = 40}.describe(), "killed by signal 40");
  EXPECT_EQ(ExitStatus{.known = false}.describe(), "exit status unknown");
}

TEST(ExitStatus, IsFoundInItsTextAsSubprocessHasIt) {
  for (int code = 0; code < 256; ++code) {
    EXPECT_EQ(returncode_of(ExitStatus{.code = code}.describe()), code);
  }
  for (int signal = 1; signal < NSIG; ++signal) {
    EXPECT_EQ(returncode_of(ExitStatus{.signal = signal}.describe()), -signal);
  }
  EXPECT_EQ(returncode_of("killed by SIGKILL; by the out-of-memory killer"), -SIGKILL);
  for (const std::string& text : {ExitStatus{.known = false}.describe(), ExitStatus{.guard_error = EIO}.describe(),
                                  std::string("exit status 99999999999"), std::string("killed by SIG"),
                                  std::string("killed by signal x"), std::string("it closed the connection")}) {
    EXPECT_EQ(returncode_of(text), std::nullopt) << text;
  }
}

TEST(Process, PollDoesNotWait) {
  const auto process = shell("exec sleep 60");
  EXPECT_EQ(process->poll(), std::nullopt);
  EXPECT_EQ(process->wait({.deadline = base::Clock::now()}), std::nullopt);
  process->signal(SIGTERM);
  EXPECT_EQ(process->wait(soon()), ExitStatus{.signal = SIGTERM});
}

TEST(Process, TheStatusIsKeptOnceCollected) {
  const auto process = shell("exit 3");
  EXPECT_EQ(process->wait(soon()), ExitStatus{.code = 3});
  EXPECT_EQ(process->poll(), ExitStatus{.code = 3});
  EXPECT_EQ(process->wait({}), ExitStatus{.code = 3});
  EXPECT_LT(::waitpid(process->pid(), nullptr, WNOHANG), 0) << "a zombie was left";
}

TEST(Process, ASignalToAnEndedProcessIsNothing) {
  const auto process = shell("exit 0");
  EXPECT_TRUE(is_readable(process->end_fd()));
  process->signal(SIGTERM);
  ASSERT_TRUE(process->wait(soon()).has_value());
  process->signal(SIGKILL);
  process->kill_tree();
  EXPECT_EQ(process->poll(), ExitStatus{});
}

TEST(Process, AnImpossibleSignalIsAnError) {
  const auto process = shell("exec sleep 60");
  EXPECT_THROW(process->signal(1000), std::system_error);
  process->kill_tree();
  EXPECT_EQ(process->wait(soon()), ExitStatus{.signal = SIGKILL});
}

TEST(Process, AStatusThatSomebodyElseCollectedIsUnknown) {
  const auto process = shell("exit 3");
  while (::waitpid(-1, nullptr, 0) > 0) {
  }
  EXPECT_EQ(process->wait(soon()), ExitStatus{.known = false});
}

TEST(Process, IgnoredSigchldDoesNotHideTheEnd) {
  struct sigaction ignore{}, before{};
  ignore.sa_handler = SIG_IGN;
  ::sigaction(SIGCHLD, &ignore, &before);
  const auto process = shell("exec sleep 60");
  EXPECT_EQ(process->poll(), std::nullopt);
  process->signal(SIGKILL);
  EXPECT_EQ(process->wait(soon()), ExitStatus{.known = false});
  ::sigaction(SIGCHLD, &before, nullptr);
}

TEST(ProcessDeathTest, AForkedCopyDoesNotTakeALivingProcessForEnded) {
  const auto process = shell("exec sleep 60");
  const pid_t copy = ::fork();
  if (copy == 0) {
    ::_exit(process->poll() ? 1 : 0);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(copy, &status, 0), copy);
  EXPECT_EQ(status, 0);
  process->signal(SIGKILL);
  EXPECT_EQ(process->wait(soon()), ExitStatus{.signal = SIGKILL});
}

TEST(KillTree, TakesGrandchildrenAndThoseInSessionsOfTheirOwn) {
  auto [in, out] = base::make_pipe();
  const auto process =
      shell("(sleep 60 & setsid sh -c 'trap \"\" TERM INT HUP; echo; sleep 60; :' & wait) & wait", {{out.get(), 1}});
  out.reset();
  read_byte(in.get());
  process->kill_tree();
  EXPECT_TRUE(reaches_end(in.get())) << "somebody survived";
  EXPECT_EQ(process->wait(soon()), ExitStatus{.signal = SIGKILL});
}

TEST(KillTree, NobodyEscapesFromAProcessThatForksAllTheTime) {
  auto [in, out] = base::make_pipe();
  // Two levels of shells that start sleepers as fast as they can; each sleeper holds the pipe.
  const auto process = shell(
      "fork_on() { n=0; while [ $n -lt 200 ]; do sleep 60 & n=$((n+1)); echo; done; wait; }; "
      "fork_on & fork_on & fork_on",
      {{out.get(), 1}});
  out.reset();
  for (int i = 0; i < 20; ++i) {
    read_byte(in.get());
  }
  process->kill_tree();
  EXPECT_TRUE(reaches_end(in.get())) << "somebody survived";
  EXPECT_EQ(process->wait(soon()), ExitStatus{.signal = SIGKILL});
}

TEST(KillTree, TakesAWholeFleetAtOnce) {
  auto [in, out] = base::make_pipe();
  std::vector<std::shared_ptr<Process>> fleet;
  std::vector<Process*> roots;
  for (int i = 0; i < 20; ++i) {
    fleet.push_back(shell("sleep 60 & echo; wait", {{out.get(), 1}}));
    roots.push_back(fleet.back().get());
  }
  out.reset();
  for (int i = 0; i < 20; ++i) {
    read_byte(in.get());
  }
  kill_trees(roots);
  EXPECT_TRUE(reaches_end(in.get())) << "somebody survived";
  for (const auto& process : fleet) {
    EXPECT_EQ(process->wait(soon()), ExitStatus{.signal = SIGKILL});
  }
}

TEST(KillTree, LeavesOthersAlone) {
  const auto other = shell("exec sleep 60");
  const auto process = shell("exec sleep 60");
  process->kill_tree();
  EXPECT_EQ(process->wait(soon()), ExitStatus{.signal = SIGKILL});
  EXPECT_EQ(other->poll(), std::nullopt);
  other->signal(SIGKILL);
  EXPECT_EQ(other->wait(soon()), ExitStatus{.signal = SIGKILL});
}

}  // namespace
}  // namespace execnet::process
