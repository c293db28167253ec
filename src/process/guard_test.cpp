// The guard, seen from outside: what is gone, and when. Everything a test starts holds the write end of a pipe, so
// that the pipe's end tells, as an event, that all of it is gone.
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include "base/syscall.hpp"
#include "elsewhere.hpp"
#include "process/pidfd.hpp"
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

// Of a program that sleeps: what is wrong with its number and its process group, as its starter sees them.
std::string wrong_of_number_and_group(bool isolate) {
  const auto program = spawn({.argv = {"sleep", "1000"}, .set_env = {}, .fds = {}, .isolate = isolate});
  const pid_t inner = parent_of(program->pid());
  const pid_t outer = parent_of(inner);
  std::string wrong;
  if (parent_of(outer) != ::getpid()) {
    wrong += "it is not known by the number it has here; ";
  }
  // A group of a namespace further out has the number 0 here.
  if (::getpgid(program->pid()) != ::getpgrp()) {
    wrong += "it is not in the group of its starter; ";
  }
  if (::getpgid(inner) == ::getpgrp() || ::getpgid(outer) == ::getpgrp()) {
    wrong += "a guard is in the group of its starter; ";
  }
  return wrong;
}

TEST(Guard, ProgramIsKnownByItsOwnNumberAndStaysInTheGroupOfItsStarter) {
  EXPECT_EQ(wrong_of_number_and_group(false), "");
}

TEST(Guard, ProgramInANamespaceIsKnownByItsNumberHereAndStaysInTheGroupOfItsStarter) {
  try {
    EXPECT_EQ(wrong_of_number_and_group(true), "");
  } catch (const IsolationError& error) {
    GTEST_SKIP() << error.what();
  }
}

TEST(Guard, ProgramStaysInAGroupThatHasNoNumberHere) {
  const std::string wrong = testing::in_pid_namespace([] { return wrong_of_number_and_group(false); });
  if (wrong.starts_with("skipped: ")) {
    GTEST_SKIP() << wrong;
  }
  EXPECT_EQ(wrong, "");
}

std::string text_of(pid_t pid, const std::string& file) {
  std::ifstream stream("/proc/" + std::to_string(pid) + "/" + file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

TEST(Guard, ShowsNobodyTheArgumentsOfTheProgram) {
  auto [in, out] = base::make_pipe();
  const auto program = spawn({.argv = {"sh", "-c", "echo; sleep 1000; :", "a-secret", ""},
                              .set_env = {{"A_MARK", "marked"}},
                              .fds = {{out.get(), 1}}});
  char byte = 0;
  EXPECT_EQ(base::check("read", [&] { return ::read(in.get(), &byte, 1); }), 1);
  EXPECT_NE(text_of(program->pid(), "cmdline").find("a-secret"), std::string::npos);
  const pid_t inner = parent_of(program->pid());
  for (const pid_t guard : {inner, parent_of(inner)}) {
    EXPECT_EQ(text_of(guard, "cmdline"), std::string("execnet-guard\0", 14));
    EXPECT_NE(text_of(guard, "environ").find("A_MARK=marked"), std::string::npos);  // as that of every process
  }
}

TEST(Guard, WhatAProgramLeavesBehindIsGoneWhenItsEndIsSeen) {
  const Fleet fleet("exit 5");
  EXPECT_EQ(fleet.process->wait(soon()), ExitStatus{.code = 5});
  EXPECT_TRUE(fleet.is_gone_now());
}

TEST(Guard, WhatAProgramLeavesBehindHasAMomentToEndByItself) {
  std::string said;
  for (int attempt = 0; attempt < 5 && said.empty(); ++attempt) {  // on a busy machine a moment may be too short
    auto [in, out] = base::make_pipe();
    const auto process = spawn(
        {.argv = {"/bin/sh", "-c", "parent=$$; (while kill -0 $parent; do :; done 2>&-; echo cleaned >&3) & exit 0"},
         .set_env = {},
         .fds = {{out.get(), 3}}});
    out.reset();
    EXPECT_EQ(process->wait(soon()), ExitStatus{});
    char text[8]{};
    const ssize_t size = base::check("read", [&] { return ::read(in.get(), text, sizeof text); });
    said.assign(text, static_cast<std::size_t>(size));
  }
  EXPECT_EQ(said, "cleaned\n");
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

TEST(Guard, EndsAsTheProgramDidAlsoWhenToldToKillAfterwards) {
  auto [in, out] = base::make_pipe();
  const auto process =
      spawn({.argv = {"/bin/sh", "-c", "(sleep 1000 &); read line; exit 5"}, .set_env = {}, .fds = {{in.get(), 0}}});
  const pid_t inner = parent_of(process->pid());
  ASSERT_EQ(::write(out.get(), "\n", 1), 1);
  const auto deadline = base::Clock::now() + 20s;
  while (::kill(process->pid(), 0) == 0 && base::Clock::now() < deadline) {
    ::sched_yield();  // until the inner one has collected it: nothing else tells
  }
  // In the moment that what is left has: the outer one is to find the inner one at work.
  ::kill(inner, SIGSTOP);
  process->kill_tree();
  EXPECT_EQ(process->wait(soon()), ExitStatus{.code = 5});
}

TEST(Guard, SaysWhatItCannotHave) {
  const std::string error = testing::elsewhere([] {
    testing::refuse_system_call(SYS_signalfd4, EMFILE);
    spawn({.argv = {"sleep", "1000"}, .set_env = {}, .fds = {}});
    return std::string("it was started");
  });
  EXPECT_NE(error.find("signalfd"), std::string::npos) << error;
  EXPECT_NE(error.find("Too many open files"), std::string::npos) << error;
}

TEST(Guard, KillsAllOfItWhenNobodyWantsTheProcessAnyMore) {
  Fleet fleet("while :; do :; done");
  const pid_t outer = parent_of(parent_of(fleet.process->pid()));
  fleet.process.reset();
  EXPECT_TRUE(fleet.is_gone_now());
  EXPECT_LT(::waitpid(outer, nullptr, WNOHANG), 0) << "a zombie was left";
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
// is no coordinator, and stays until the test lets it go. Descriptor 4 of the program has a line when all of that is
// there, and ends with the coordinator.
[[noreturn]] void coordinate(const std::string& command, const Leniency& leniency, base::Fd pipe,
                             const base::Fd& let_go) {
  auto [there, here] = base::make_pipe();
  const auto process = spawn({.argv = {"/bin/sh", "-c", command},
                              .set_env = {},
                              .fds = {{pipe.get(), 3}, {there.get(), 4}},
                              .leniency = leniency});
  pipe.reset();
  if (::fork() == 0) {
    here.reset();
    char byte = 0;
    std::_Exit(::read(let_go.get(), &byte, 1) == 1 ? 0 : 1);
  }
  static_cast<void>(!::write(here.get(), "\n", 1));
  for (;;) {
    ::pause();
  }
}

// The coordinator of the family, and of what the command does then, has been killed when this returns.
struct Orphaned {
  Fleet fleet;
  base::Fd let_go;
  base::Clock::time_point since;

  explicit Orphaned(
      const std::string& then, const Leniency& leniency = {}, const std::function<void()>& before = [] {}) {
    auto [in, out] = base::make_pipe();
    auto [let_go_in, let_go_out] = base::make_pipe();
    const pid_t coordinator = ::fork();
    if (coordinator == 0) {
      before();
      coordinate("read line <&4; " + (kFamily + then), leniency, std::move(out), let_go_in);
    }
    out.reset();
    fleet.pipe = std::move(in);
    fleet.read_ready();
    since = base::Clock::now();
    EXPECT_EQ(::kill(coordinator, SIGKILL), 0);
    EXPECT_EQ(::waitpid(coordinator, nullptr, 0), coordinator);
    let_go = std::move(let_go_out);
  }
  ~Orphaned() { EXPECT_EQ(::write(let_go.get(), "", 1), 1); }
  Orphaned(const Orphaned&) = delete;
  Orphaned& operator=(const Orphaned&) = delete;
};

TEST(Guard, KillsAllOfItWhenTheCoordinatorIsKilled) { EXPECT_TRUE(Orphaned("while :; do :; done").fleet.is_gone()); }

// As with an old kernel, in a sandbox, or under valgrind 3.19.
TEST(Guard, KillsAllOfItWhenTheCoordinatorIsKilledAlsoWithoutAPidfd) {
  constexpr int kPidfdOpen = 434;
  const Orphaned orphaned("while :; do :; done", {}, [] { testing::refuse_system_call(kPidfdOpen, ENOSYS); });
  EXPECT_TRUE(orphaned.fleet.is_gone());
}

TEST(Guard, WhatReactsToTheEndOfTheCoordinatorHasTheGrace) {
  const Orphaned orphaned("read line <&4; sleep 0.5; echo tidy >&3", {.grace = 60s});
  char text[6]{};
  ASSERT_TRUE(orphaned.fleet.readable());
  EXPECT_EQ(base::check("read", [&] { return ::read(orphaned.fleet.pipe.get(), text, 5); }), 5);
  EXPECT_STREQ(text, "tidy\n");
  EXPECT_TRUE(orphaned.fleet.is_gone());  // at once, with what it leaves behind, and not when the grace is over
}

TEST(Guard, WhatDoesNotReactIsKilledWhenTheGraceIsOver) {
  const Orphaned orphaned("while :; do :; done", {.grace = 500ms});
  EXPECT_TRUE(orphaned.fleet.is_gone());
  EXPECT_GE(base::Clock::now() - orphaned.since, 500ms);
}

// Descriptor 3 is held by what stays in the session of the program, or in one that the program makes for itself; 4 by
// a daemon and by a child in a session of its own.
const char* const kHalfDetached =
    "(exec 3>&-; setsid sh -c 'echo $$ >&4; exec sleep 1000' & "
    "(setsid sh -c 'sh -c \"echo \\$\\$ >&4; exec sleep 1000\" &' &)); exec 4>&-; sleep 1000 & ";

// What is left of a program that keeps what is detached.
struct Kept {
  std::shared_ptr<Process> process;
  base::Fd attached, detached;
  std::vector<pid_t> pids;

  explicit Kept(const std::string& then) {
    auto [attached_in, attached_out] = base::make_pipe();
    auto [detached_in, detached_out] = base::make_pipe();
    process = spawn({.argv = {"/bin/sh", "-c", kHalfDetached + then},
                     .set_env = {},
                     .fds = {{attached_out.get(), 3}, {detached_out.get(), 4}},
                     .leniency = {.keeps_detached = true}});
    attached = std::move(attached_in);
    detached = std::move(detached_in);
    attached_out.reset();
    detached_out.reset();
    std::string text;
    while (std::count(text.begin(), text.end(), '\n') < 2) {
      char byte = 0;
      EXPECT_EQ(base::check("read", [&] { return ::read(detached.get(), &byte, 1); }), 1);
      text += byte;
    }
    std::istringstream lines(text);
    pids.assign(std::istream_iterator<pid_t>(lines), {});
  }
  ~Kept() {
    for (const pid_t pid : pids) {
      ::kill(pid, SIGKILL);
    }
    EXPECT_TRUE(is_gone(detached));
  }
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;

  static bool is_gone(const base::Fd& pipe) {
    pollfd entry{.fd = pipe.get(), .events = POLLIN, .revents = 0};
    char byte = 0;
    return base::poll_until(std::span(&entry, 1), soon()) &&
           base::check("read", [&] { return ::read(pipe.get(), &byte, 1); }) == 0;
  }
  // Both of them, after everything else is gone.
  [[nodiscard]] bool are_left() const {
    return is_gone(attached) && std::all_of(pids.begin(), pids.end(), [](pid_t pid) { return ::kill(pid, 0) == 0; });
  }
};

TEST(Guard, KeepsWhatIsDetachedWhenTheProgramEnds) {
  const Kept kept("exit 5");
  EXPECT_EQ(kept.process->wait(soon()), ExitStatus{.code = 5});
  EXPECT_TRUE(kept.are_left());
}

TEST(Guard, KeepsWhatIsDetachedWhenItKillsTheRest) {
  const Kept kept("while :; do :; done");
  kept.process->kill_tree();
  EXPECT_EQ(kept.process->wait(soon()), ExitStatus{.signal = SIGKILL});
  EXPECT_TRUE(kept.are_left());
}

TEST(Guard, KeepsNoProgramThatIsInASessionOfItsOwnNorWhatIsInThat) {
  const Kept kept("exec setsid sh -c 'sleep 1000 & while :; do :; done'");
  kept.process->kill_tree();
  EXPECT_EQ(kept.process->wait(soon()), ExitStatus{.signal = SIGKILL});
  EXPECT_TRUE(kept.are_left());
}

TEST(Guard, KeepsWhatIsDetachedWhenOneOfTheTwoIsKilled) {
  const Kept kept("while :; do :; done");
  ASSERT_EQ(::kill(parent_of(kept.process->pid()), SIGKILL), 0);
  EXPECT_EQ(kept.process->wait(soon()), ExitStatus{.signal = SIGKILL});
  EXPECT_TRUE(kept.are_left());
}

// As a fork server's worker is.
TEST(KillTrees, LeavesWhatIsDetachedFromAProcessWithoutAGuard) {
  auto [in, out] = base::make_pipe();
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(out.get(), 3);
    ::execl("/bin/sh", "sh", "-c", "setsid sleep 1000 3>&- & echo $! >&3; sleep 1000 & while :; do :; done", nullptr);
  }
  out.reset();
  std::string text;
  for (char byte = 0; byte != '\n'; text += byte) {
    ASSERT_EQ(base::check("read", [&] { return ::read(in.get(), &byte, 1); }), 1);
  }
  const pid_t detached = std::stoi(text);
  const auto deadline = base::Clock::now() + 20s;
  while (::getsid(detached) == ::getsid(0) && base::Clock::now() < deadline) {
    ::sched_yield();  // until it has left: nothing else tells
  }
  Process process(child, pidfd_open(child), true);
  process.kill_tree();
  EXPECT_EQ(process.wait(soon()), ExitStatus{.signal = SIGKILL});
  EXPECT_TRUE(Kept::is_gone(in));
  EXPECT_EQ(::kill(detached, SIGKILL), 0);
}

}  // namespace
}  // namespace execnet::process
