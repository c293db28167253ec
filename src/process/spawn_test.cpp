#include "process/spawn.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "base/syscall.hpp"
#include "process/close_on_exec.hpp"

namespace execnet::process {
namespace {

using namespace std::chrono_literals;

base::Wait soon() { return {.deadline = base::Clock::now() + 20s}; }

ExitStatus status_of(Process& process) {
  const auto status = process.wait(soon());
  EXPECT_TRUE(status.has_value()) << "the process did not end in time";
  return status.value_or(ExitStatus{.known = false});
}

std::string read_all(int fd) {
  std::string text;
  char bytes[4096];
  for (;;) {
    pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
    if (!base::poll_until(std::span(&entry, 1), soon())) {
      ADD_FAILURE() << "nothing came in time after: " << text;
      return text;
    }
    const auto size = base::check("read", [&] { return ::read(fd, bytes, sizeof bytes); });
    if (size == 0) {
      return text;
    }
    text.append(bytes, static_cast<std::size_t>(size));
  }
}

// What the shell command writes to descriptor 1.
std::string output_of(const std::string& command, std::vector<std::pair<std::string, std::string>> set_env = {}) {
  auto [in, out] = base::make_pipe();
  const auto process =
      spawn({.argv = {"/bin/sh", "-c", command}, .set_env = std::move(set_env), .fds = {{out.get(), 1}}});
  out.reset();
  std::string text = read_all(in.get());
  status_of(*process);
  return text;
}

bool has_no_children() { return ::waitpid(-1, nullptr, WNOHANG) < 0 && errno == ECHILD; }

// A directory that goes away with its contents.
class TempDirectory {
 public:
  TempDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "execnet-spawn-XXXXXX").string();
    path = ::mkdtemp(name.data());
  }
  ~TempDirectory() { std::filesystem::remove_all(path); }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;

  std::filesystem::path path;
};

void write_file(const std::filesystem::path& path, const std::string& text, mode_t mode) {
  std::ofstream(path) << text;
  ASSERT_EQ(::chmod(path.c_str(), mode), 0);
}

TEST(Spawn, RunsTheProgramWithItsArguments) { EXPECT_EQ(output_of("printf %s,%s \"$0\" 'a b'"), "/bin/sh,a b"); }

TEST(Spawn, LooksTheProgramUpInPath) {
  const auto process = spawn({.argv = {"sh", "-c", "exit 3"}, .set_env = {}, .fds = {}});
  EXPECT_EQ(status_of(*process), ExitStatus{.code = 3});
}

TEST(Spawn, SetsVariablesOnTopOfTheEnvironment) {
  ::setenv("EXECNET_TEST_KEPT", "kept", 1);
  ::setenv("EXECNET_TEST_SET", "old", 1);
  EXPECT_EQ(output_of("echo $EXECNET_TEST_KEPT $EXECNET_TEST_SET; env | grep -c EXECNET_TEST_SET",
                      {{"EXECNET_TEST_SET", "new=1"}}),
            "kept new=1\n1\n");
}

TEST(Spawn, UsesThePathOfTheNewEnvironment) {
  const TempDirectory directory;
  write_file(directory.path / "greet", "#!/bin/sh\nexit 7\n", 0755);
  const std::string path = "/nonexistent:" + directory.path.string() + ":/bin:/usr/bin";
  const auto process = spawn({.argv = {"greet"}, .set_env = {{"PATH", path}}, .fds = {}});
  EXPECT_EQ(status_of(*process), ExitStatus{.code = 7});
  EXPECT_THROW(spawn({.argv = {"greet"}, .set_env = {}, .fds = {}}), ExecError);
}

TEST(Spawn, CandidatesFollowPathAndAnEmptyEntryIsTheCurrentDirectory) {
  const std::vector<std::string> expected{"/a/x", "x", "/b/x"};
  EXPECT_EQ(program_candidates("x", {{"PATH", "/a::/b"}}), expected);
  EXPECT_EQ(program_candidates("./x", {{"PATH", "/a"}}), std::vector<std::string>{"./x"});
}

void expect_exec_error(const std::vector<std::string>& argv, int error) {
  try {
    spawn({.argv = argv, .set_env = {}, .fds = {}});
    ADD_FAILURE() << argv[0] << " was started";
  } catch (const ExecError& failure) {
    EXPECT_EQ(failure.code().value(), error) << failure.what();
    EXPECT_NE(std::string(failure.what()).find(argv[0]), std::string::npos) << failure.what();
  }
  EXPECT_TRUE(has_no_children());
}

TEST(Spawn, BringsTheErrorOfExecHomeAndLeavesNoZombie) {
  const TempDirectory directory;
  write_file(directory.path / "closed", "#!/bin/sh\n", 0644);
  write_file(directory.path / "formless", "no magic number here\n", 0755);
  expect_exec_error({"execnet-no-such-program"}, ENOENT);
  expect_exec_error({"/nonexistent/python"}, ENOENT);
  expect_exec_error({(directory.path / "closed").string()}, EACCES);
  expect_exec_error({(directory.path / "formless").string()}, ENOEXEC);
  expect_exec_error({(directory.path / "closed" / "under-a-file").string()}, ENOTDIR);
  expect_exec_error({directory.path.string()}, EACCES);
}

TEST(Spawn, AFileThatMayNotBeExecutedIsPassedOverForALaterOne) {
  const TempDirectory directory;
  std::filesystem::create_directories(directory.path / "a");
  std::filesystem::create_directories(directory.path / "b");
  write_file(directory.path / "a" / "tool", "#!/bin/sh\n", 0644);
  const std::string path = (directory.path / "a").string() + ":" + (directory.path / "b").string();
  try {
    spawn({.argv = {"tool"}, .set_env = {{"PATH", path}}, .fds = {}});
    ADD_FAILURE() << "was started";
  } catch (const ExecError& failure) {
    EXPECT_EQ(failure.code().value(), EACCES);
  }
  write_file(directory.path / "b" / "tool", "#!/bin/sh\nexit 5\n", 0755);
  const auto process = spawn({.argv = {"tool"}, .set_env = {{"PATH", path}}, .fds = {}});
  EXPECT_EQ(status_of(*process), ExitStatus{.code = 5});
}

TEST(Spawn, RefusesWhatExecWouldCutShort) {
  EXPECT_THROW(spawn({.argv = {}, .set_env = {}, .fds = {}}), std::system_error);
  EXPECT_THROW(spawn({.argv = {""}, .set_env = {}, .fds = {}}), std::system_error);
  EXPECT_THROW(spawn({.argv = {"sh", std::string("a\0b", 3)}, .set_env = {}, .fds = {}}), std::system_error);
  EXPECT_THROW(spawn({.argv = {"sh"}, .set_env = {{"A=B", "c"}}, .fds = {}}), std::system_error);
  EXPECT_THROW(spawn({.argv = {"sh"}, .set_env = {{"", "c"}}, .fds = {}}), std::system_error);
  EXPECT_TRUE(has_no_children());
}

TEST(Spawn, NamesADescriptorThatCannotBeGiven) {
  try {
    spawn({.argv = {"true"}, .set_env = {}, .fds = {{-1, 3}}});
    ADD_FAILURE() << "was started";
  } catch (const ExecError&) {
    ADD_FAILURE() << "taken for an error of the program";
  } catch (const std::system_error& failure) {
    EXPECT_EQ(failure.code().value(), EBADF) << failure.what();
  }
  EXPECT_TRUE(has_no_children());
}

TEST(Spawn, DescriptorsMaySwapNumbers) {
  auto [in_a, out_a] = base::make_pipe();
  auto [in_b, out_b] = base::make_pipe();
  const int a = out_a.get();
  const int b = out_b.get();
  // The shell knows only one-digit descriptors, so let a second one map the swapped pair to 1 and 2.
  const auto process = spawn({.argv = {"/bin/sh", "-c",
                                       "echo from-a >/proc/self/fd/" + std::to_string(a) +
                                           "; echo from-b >/proc/self/fd/" + std::to_string(b)},
                              .set_env = {},
                              .fds = {{a, b}, {b, a}}});
  out_a.reset();
  out_b.reset();
  EXPECT_EQ(read_all(in_a.get()), "from-b\n");
  EXPECT_EQ(read_all(in_b.get()), "from-a\n");
  EXPECT_EQ(status_of(*process), ExitStatus{});
}

TEST(Spawn, ADescriptorMayKeepItsNumber) {
  auto [in, out] = base::make_pipe();
  const auto process = spawn({.argv = {"/bin/sh", "-c", "echo here >/proc/self/fd/" + std::to_string(out.get())},
                              .set_env = {},
                              .fds = {{out.get(), out.get()}}});
  out.reset();
  EXPECT_EQ(read_all(in.get()), "here\n");
  status_of(*process);
}

TEST(Spawn, TheChildHasNoOtherDescriptors) {
  const base::Fd leaky(::open("/dev/null", O_RDONLY));  // Deliberately without O_CLOEXEC.
  const base::Fd high(::fcntl(leaky.get(), F_DUPFD, 300));
  auto [in, out] = base::make_pipe();
  // ls opens the directory itself, as the lowest free number.
  EXPECT_EQ(output_of("ls /proc/self/fd | tr '\\n' ' '"), "0 1 2 3 ");
}

TEST(Spawn, DescriptorsAreAlsoMarkedThroughProc) {
  const base::Fd low(::open("/dev/null", O_RDONLY));
  const base::Fd high(::fcntl(low.get(), F_DUPFD, 300));
  ASSERT_TRUE(close_listed_on_exec(high.get()));
  EXPECT_EQ(::fcntl(low.get(), F_GETFD), 0);
  EXPECT_EQ(::fcntl(high.get(), F_GETFD), FD_CLOEXEC);
}

// Ignores a signal while it lives.
class Ignoring {
 public:
  explicit Ignoring(int number) : number_(number) {
    struct sigaction ignore{};
    ignore.sa_handler = SIG_IGN;
    ::sigaction(number, &ignore, &before_);
  }
  ~Ignoring() { ::sigaction(number_, &before_, nullptr); }
  Ignoring(const Ignoring&) = delete;
  Ignoring& operator=(const Ignoring&) = delete;

 private:
  const int number_;
  struct sigaction before_{};
};

constexpr unsigned long long bit(int number) { return 1ULL << (number - 1); }

// What the kernel says that a program ignores. It is no shell, for those do not leave SIGCHLD ignored.
unsigned long long ignored_by_the_program() {
  auto [in, out] = base::make_pipe();
  const auto process = spawn({.argv = {"cat", "/proc/self/status"}, .set_env = {}, .fds = {{out.get(), 1}}});
  out.reset();
  const std::string text = read_all(in.get());
  status_of(*process);
  EXPECT_NE(text.find("SigBlk:\t0000000000000000\n"), std::string::npos) << text;
  const std::size_t ignored = text.find("SigIgn:\t");
  EXPECT_NE(ignored, std::string::npos) << text;
  return std::stoull(text.substr(ignored + 8, 16), nullptr, 16);
}

TEST(Spawn, TheProgramIgnoresWhatIsIgnoredHereAndBlocksNothing) {
  const unsigned long long before = ignored_by_the_program();
  const Ignoring hup(SIGHUP);  // as nohup(1) has it
  const Ignoring usr1(SIGUSR1), term(SIGTERM), chld(SIGCHLD), last(SIGRTMAX);
  const Ignoring pipe(SIGPIPE), size(SIGXFSZ);  // as Python has them, for itself
  sigset_t usr2, mask;
  ::sigemptyset(&usr2);
  ::sigaddset(&usr2, SIGUSR2);
  ::pthread_sigmask(SIG_BLOCK, &usr2, &mask);
  const unsigned long long ignored = ignored_by_the_program();
  ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  EXPECT_EQ(ignored, before | bit(SIGHUP) | bit(SIGUSR1) | bit(SIGTERM) | bit(SIGCHLD) | bit(SIGRTMAX));
}

TEST(Spawn, AProgramWhoseChildrenNobodyCollectsIsGuardedAllTheSame) {
  const Ignoring chld(SIGCHLD);
  auto [in, out] = base::make_pipe();
  const auto process = spawn(
      {.argv = {"/bin/sh", "-c", "(setsid sleep 1000 &); exec sleep 1000"}, .set_env = {}, .fds = {{out.get(), 1}}});
  out.reset();
  process->signal(SIGTERM);
  EXPECT_EQ(read_all(in.get()), "");                           // all of it is gone
  EXPECT_EQ(status_of(*process), ExitStatus{.known = false});  // the kernel has collected its guard
}

TEST(Spawn, TheCallersSignalMaskIsKept) {
  sigset_t before, after;
  ::pthread_sigmask(SIG_SETMASK, nullptr, &before);
  status_of(*spawn({.argv = {"true"}, .set_env = {}, .fds = {}}));
  ::pthread_sigmask(SIG_SETMASK, nullptr, &after);
  for (int number = 1; number < NSIG; ++number) {
    EXPECT_EQ(::sigismember(&before, number), ::sigismember(&after, number)) << number;
  }
}

// Runs in a process of its own, whose standard descriptors are closed.
void spawn_without_standard_descriptors() {
  for (int fd = 0; fd <= 2; ++fd) {
    ::close(fd);
  }
  auto [in, out] = base::make_pipe();  // takes 0 and 1
  const auto process = spawn(
      {.argv = {"/bin/sh", "-c", "echo one; echo two >&2"}, .set_env = {}, .fds = {{out.get(), 2}, {out.get(), 1}}});
  out.reset();
  const std::string text = read_all(in.get());
  std::_Exit(text == "one\ntwo\n" && status_of(*process) == ExitStatus{} ? 0 : 1);
}

TEST(SpawnDeathTest, WorksWhenTheStandardDescriptorsAreClosed) {
  EXPECT_EXIT(spawn_without_standard_descriptors(), testing::ExitedWithCode(0), "");
}

TEST(Spawn, ManyThreadsMaySpawnAtOnce) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 10; ++i) {
        const auto process = spawn({.argv = {"sh", "-c", "exit " + std::to_string(t)}, .set_env = {}, .fds = {}});
        EXPECT_EQ(status_of(*process), ExitStatus{.code = t});
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_TRUE(has_no_children());
}

// A signal handler of the embedding program must run once per signal, in the program and not in its children.
volatile sig_atomic_t handled_elsewhere = 0;
pid_t this_program = 0;
void note_where(int) {
  if (::getpid() != this_program) {
    handled_elsewhere = 1;
  }
}

TEST(Spawn, NoHandlerRunsInTheChild) {
  this_program = ::getpid();
  struct sigaction action{}, before{};
  action.sa_handler = note_where;
  action.sa_flags = SA_RESTART;
  ::sigaction(SIGUSR1, &action, &before);
  std::atomic<bool> done = false;
  std::thread shower([&] {
    while (!done) {
      ::kill(this_program, SIGUSR1);
      std::this_thread::yield();
    }
  });
  for (int i = 0; i < 30; ++i) {
    EXPECT_EQ(status_of(*spawn({.argv = {"true"}, .set_env = {}, .fds = {}})), ExitStatus{});
  }
  done = true;
  shower.join();
  ::sigaction(SIGUSR1, &before, nullptr);
  EXPECT_EQ(handled_elsewhere, 0);
}

}  // namespace
}  // namespace execnet::process
