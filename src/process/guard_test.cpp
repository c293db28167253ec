// The guard, seen from outside: what is gone, and when. Everything a test starts holds the write end of a pipe, so
// that the pipe's end tells, as an event, that all of it is gone.
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/syscall.hpp"
#include "process/spawn.hpp"
#include "process/tree.hpp"
#include "processes.hpp"

namespace execnet::process {
namespace {

using namespace std::chrono_literals;
using testing::parent_of;
using testing::starter_of;

base::Wait soon() { return {.deadline = base::Clock::now() + 20s}; }

// A grandchild in a session of its own, and a daemon, whose parents are gone; both ignore what can be ignored.
const char* const kFamily =
    "trap '' TERM HUP INT; setsid sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &) ; echo ready >&3; ";

// A shell whose descriptor 3 is a pipe, with that family.
struct Fleet {
  Fleet() = default;
  explicit Fleet(const std::string& then) {
    auto [in, out] = base::make_pipe();
    process = spawn({.argv = {"/bin/sh", "-c", kFamily + then}, .set_env = {}, .fds = {{out.get(), 3}}});
    pipe = std::move(in);
    out.reset();
    read_ready();
  }

  void read_ready() const {
    char text[6];
    EXPECT_TRUE(readable()) << "it did not start";
    EXPECT_EQ(base::check("read", [&] { return ::read(pipe.get(), text, sizeof text); }), 6);
  }

  bool readable() const {
    pollfd entry{.fd = pipe.get(), .events = POLLIN, .revents = 0};
    return base::poll_until(std::span(&entry, 1), soon());
  }

  // Whether nobody holds the pipe any more, by an event.
  bool is_gone() const {
    char byte = 0;
    return readable() && base::check("read", [&] { return ::read(pipe.get(), &byte, 1); }) == 0;
  }
  // The same now.
  bool is_gone_now() const {
    pollfd entry{.fd = pipe.get(), .events = POLLIN, .revents = 0};
    return ::poll(&entry, 1, 0) == 1 && (entry.revents & POLLHUP) != 0;
  }

  std::shared_ptr<Process> process;
  base::Fd pipe;
};

TEST(Guard, EndsAsTheProgramDoes) {
  const auto status = [](const std::string& command) {
    return spawn({.argv = {"/bin/sh", "-c", command}, .set_env = {}, .fds = {}})->wait(soon());
  };
  EXPECT_EQ(status("exit 0"), ExitStatus{});
  EXPECT_EQ(status("exit 37"), ExitStatus{.code = 37});
  EXPECT_EQ(status("exec cat /nonexistent 2>&-"), ExitStatus{.code = 1});
  for (const int number : {SIGKILL, SIGTERM, SIGINT, SIGSEGV, SIGABRT, SIGHUP, SIGPIPE, SIGALRM}) {
    EXPECT_EQ(status("kill -" + std::to_string(number) + " $$"), ExitStatus{.signal = number}) << number;
  }
}

TEST(Guard, ProgramIsKnownByItsOwnNumberAndStaysInTheGroupOfItsStarter) {
  const Fleet fleet("sleep 1000");
  EXPECT_EQ(::getpgid(fleet.process->pid()), ::getpgrp());
  const pid_t inner = parent_of(fleet.process->pid());
  EXPECT_NE(inner, ::getpid());
  EXPECT_EQ(starter_of(fleet.process->pid()), ::getpid());
  EXPECT_NE(::getpgid(inner), ::getpgrp());
}

TEST(Guard, WhatAProgramLeavesBehindIsGoneWhenItsEndIsSeen) {
  const Fleet fleet("exit 5");
  EXPECT_EQ(fleet.process->wait(soon()), ExitStatus{.code = 5});
  EXPECT_TRUE(fleet.is_gone_now());
}

TEST(Guard, WhatAProgramLeavesBehindHasAMomentToEndByItself) {
  auto [in, out] = base::make_pipe();
  const auto process = spawn(
      {.argv = {"/bin/sh", "-c", "parent=$$; (while kill -0 $parent; do :; done 2>&-; echo cleaned >&3) & exit 0"},
       .set_env = {},
       .fds = {{out.get(), 3}}});
  out.reset();
  EXPECT_EQ(process->wait(soon()), ExitStatus{});
  char text[8]{};
  EXPECT_EQ(base::check("read", [&] { return ::read(in.get(), text, sizeof text); }), 8);
  EXPECT_EQ(std::string(text, 7), "cleaned");
}

TEST(Guard, PassesSignalsOn) {
  const auto process = spawn({.argv = {"/bin/sh", "-c", "trap 'exit 9' TERM; kill -USR1 $PPID; while :; do :; done"},
                              .set_env = {},
                              .fds = {}});
  // The program's own SIGUSR1 to its parent comes back to it, and ends it.
  EXPECT_EQ(process->wait(soon()), ExitStatus{.signal = SIGUSR1});

  auto [in, out] = base::make_pipe();
  const auto other = spawn({.argv = {"/bin/sh", "-c", "trap 'exit 9' TERM; echo >&3; while :; do :; done"},
                            .set_env = {},
                            .fds = {{out.get(), 3}}});
  char byte = 0;
  EXPECT_EQ(base::check("read", [&] { return ::read(in.get(), &byte, 1); }), 1);
  other->signal(SIGTERM);
  EXPECT_EQ(other->wait(soon()), ExitStatus{.code = 9});
}

TEST(Guard, KillsAllOfItWhenToldTo) {
  const Fleet fleet("while :; do :; done");
  Process* process = fleet.process.get();
  kill_trees(std::span(&process, 1));
  EXPECT_EQ(fleet.process->wait(soon()), ExitStatus{.signal = SIGKILL});
  EXPECT_TRUE(fleet.is_gone_now());
}

TEST(Guard, KillsAllOfItAlsoWhenAllIsStopped) {
  const Fleet fleet("while :; do :; done");
  const pid_t inner = parent_of(fleet.process->pid());
  const pid_t outer = parent_of(inner);
  for (const pid_t pid : {outer, inner, fleet.process->pid()}) {
    ASSERT_EQ(::kill(pid, SIGSTOP), 0);
  }
  fleet.process->kill_tree();
  EXPECT_EQ(fleet.process->wait(soon()), ExitStatus{.signal = SIGKILL});
  EXPECT_TRUE(fleet.is_gone_now());
}

TEST(Guard, KillsAllOfItWhenNobodyWantsTheProcessAnyMore) {
  Fleet fleet("while :; do :; done");
  const pid_t outer = parent_of(parent_of(fleet.process->pid()));
  fleet.process.reset();
  EXPECT_TRUE(fleet.is_gone());
  EXPECT_EQ(::waitpid(outer, nullptr, 0), outer);
}

TEST(Guard, EitherOfTheTwoMayBeKilled) {
  {
    const Fleet fleet("while :; do :; done");
    fleet.process->signal(SIGKILL);  // the outer one
    EXPECT_EQ(fleet.process->wait(soon()), ExitStatus{.signal = SIGKILL});
    EXPECT_TRUE(fleet.is_gone());
  }
  {
    const Fleet fleet("while :; do :; done");
    ASSERT_EQ(::kill(parent_of(fleet.process->pid()), SIGKILL), 0);  // the inner one
    EXPECT_EQ(fleet.process->wait(soon()), ExitStatus{.signal = SIGKILL});
    EXPECT_TRUE(fleet.is_gone_now());
  }
}

// The coordinator, a process of its own, never returns. A copy that it has forked, which holds whatever it had open,
// is no coordinator, and stays until the test lets it go.
[[noreturn]] void coordinate(const std::string& command, base::Fd pipe, const base::Fd& let_go) {
  const auto process = spawn({.argv = {"/bin/sh", "-c", command}, .set_env = {}, .fds = {{pipe.get(), 3}}});
  pipe.reset();
  if (::fork() == 0) {
    char byte = 0;
    std::_Exit(::read(let_go.get(), &byte, 1) == 1 ? 0 : 1);
  }
  for (;;) {
    ::pause();
  }
}

TEST(Guard, KillsAllOfItWhenTheCoordinatorIsKilled) {
  Fleet fleet;
  auto [in, out] = base::make_pipe();
  auto [let_go_in, let_go_out] = base::make_pipe();
  const pid_t coordinator = ::fork();
  if (coordinator == 0) {
    coordinate(std::string(kFamily) + "while :; do :; done", std::move(out), let_go_in);
  }
  out.reset();
  fleet.pipe = std::move(in);
  fleet.read_ready();
  ASSERT_EQ(::kill(coordinator, SIGKILL), 0);
  ASSERT_EQ(::waitpid(coordinator, nullptr, 0), coordinator);
  EXPECT_TRUE(fleet.is_gone());
  EXPECT_EQ(::write(let_go_out.get(), "", 1), 1);
}

}  // namespace
}  // namespace execnet::process
