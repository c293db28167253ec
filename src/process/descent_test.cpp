#include "process/descent.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <cstdio>
#include <memory>
#include <string>

#include "base/syscall.hpp"
#include "process/spawn.hpp"

namespace execnet::process {
namespace {

using namespace std::chrono_literals;
using Kind = Descent::Kind;

base::Wait soon() { return {.deadline = base::Clock::now() + 30s}; }

// A shell whose child and grandchild say their numbers.
class Family : public testing::Test {
 protected:
  Family() {
    auto [in, out] = base::make_pipe();
    root_ = spawn({.argv = {"sh", "-c", "echo $$; sh -c 'echo $$; sleep 1000 & echo $!; wait' & wait"},
                   .set_env = {},
                   .fds = {{out.get(), 1}}});
    out.reset();
    std::string said;
    while (std::count(said.begin(), said.end(), '\n') < 3) {
      char byte = 0;
      if (base::check("read", [&, fd = in.get()] { return ::read(fd, &byte, 1); }) == 0) {
        ADD_FAILURE() << "it has ended";
        break;
      }
      said += byte;
    }
    std::sscanf(said.c_str(), "%d %d %d", &shell_, &child_, &grandchild_);
  }
  ~Family() override {
    root_->kill_tree();
    EXPECT_TRUE(root_->wait(soon()));
  }

  std::shared_ptr<Process> root_;
  pid_t shell_ = 0, child_ = 0, grandchild_ = 0;
};

TEST_F(Family, AreFoundUnderTheirAncestor) {
  Descent descent(*root_);
  for (const pid_t pid : {grandchild_, child_, shell_, child_}) {
    const auto found = descent.find(pid);
    EXPECT_EQ(found.kind, Kind::kOurs) << pid;
    EXPECT_TRUE(found.pidfd);
  }
}

TEST_F(Family, OfOthersAreNot) {
  const auto other = spawn({.argv = {"sleep", "1000"}, .set_env = {}, .fds = {}});
  const pid_t child = ::fork();
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  Descent descent(*root_);
  EXPECT_EQ(descent.find(child_).kind, Kind::kOurs);
  for (const pid_t pid : {pid_t{1}, ::getpid(), ::getppid(), child, other->pid()}) {
    EXPECT_EQ(descent.find(pid).kind, Kind::kOthers) << pid;
  }
  EXPECT_EQ(Descent(*other).find(grandchild_).kind, Kind::kOthers);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  other->kill_tree();
  EXPECT_TRUE(other->wait(soon()));
}

TEST_F(Family, NumbersOfNobodyAreNone) {
  Descent descent(*root_);
  for (const pid_t pid : {INT_MAX, 1 << 23}) {
    EXPECT_EQ(descent.find(pid).kind, Kind::kNone) << pid;
  }
}

// kill(2) takes them for groups, or for everybody.
TEST_F(Family, NumbersThatAreNoneOfAProcessAreOthers) {
  Descent descent(*root_);
  for (const pid_t pid : {0, -1, -2, INT_MIN}) {
    EXPECT_EQ(descent.find(pid).kind, Kind::kOthers) << pid;
  }
}

TEST_F(Family, HasNobodyWhenItHasEnded) {
  Descent descent(*root_);
  EXPECT_EQ(descent.find(child_).kind, Kind::kOurs);
  root_->kill_tree();
  EXPECT_TRUE(root_->wait(soon()));
  EXPECT_NE(descent.find(::getpid()).kind, Kind::kOurs);
}

}  // namespace
}  // namespace execnet::process
