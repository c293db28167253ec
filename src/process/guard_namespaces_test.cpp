// PID namespaces whose /proc is that of another one, as `unshare -p -f` leaves it: its numbers are those of strangers.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "../../guard/children.hpp"
#include "base/syscall.hpp"
#include "elsewhere.hpp"
#include "process/pidfd.hpp"
#include "process/spawn.hpp"
#include "process/tree.hpp"

namespace execnet::process {
namespace {

using namespace std::chrono_literals;

base::Wait soon() { return {.deadline = base::Clock::now() + 20s}; }

// What /proc, of another namespace, says about the process that has number `here` in this one: its number there, and
// its parent's.
struct Outside {
  pid_t pid = 0;
  pid_t parent = 0;
};
Outside outside(pid_t here) {
  const std::string own_namespace = std::filesystem::read_symlink("/proc/self/ns/pid").string();
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::error_code error;
    if (std::filesystem::read_symlink(entry.path() / "ns" / "pid", error).string() != own_namespace) {
      continue;
    }
    std::ifstream status(entry.path() / "status");
    Outside found;
    pid_t last = 0;
    for (std::string line; std::getline(status, line);) {
      std::istringstream words(line);
      std::string key;
      words >> key;
      if (key == "Pid:") {
        words >> found.pid;
      } else if (key == "PPid:") {
        words >> found.parent;
      } else if (key == "NSpid:") {
        while (words >> last) {
        }
      }
    }
    if (last == here) {
      return found;
    }
  }
  throw std::runtime_error("/proc does not show process " + std::to_string(here));
}

// A process with that number, which sleeps. Throws where numbers cannot be chosen.
pid_t fork_as(pid_t number) {
  std::ofstream last("/proc/sys/kernel/ns_last_pid");
  last << number - 1 << std::flush;
  const pid_t pid = ::fork();
  if (pid == 0) {
    for (;;) {
      ::pause();
    }
  }
  if (!last || pid != number) {
    throw std::runtime_error("skipped: number " + std::to_string(number) + " cannot be had: " + std::strerror(errno));
  }
  return pid;
}

bool lives(pid_t child) { return ::waitpid(child, nullptr, WNOHANG) == 0; }

// Runs it in a new namespace, with the /proc of this one, or with none.
enum class Proc { kForeign, kNone };
std::string in_strange_land(Proc proc, const std::function<std::string()>& part) {
  return testing::elsewhere([&]() -> std::string {
    if (::unshare(CLONE_NEWPID | CLONE_NEWNS) != 0) {
      return std::string("skipped: no PID namespace: ") + std::strerror(errno);
    }
    return testing::elsewhere([&]() -> std::string {
      if (proc == Proc::kNone && !testing::hide_proc()) {
        return std::string("skipped: /proc cannot be hidden: ") + std::strerror(errno);
      }
      return guard::proc_is_ours() ? "it is taken for ours" : part();
    });
  });
}

#define EXPECT_NOTHING_WRONG(expression)          \
  do {                                            \
    const std::string result_text = (expression); \
    if (result_text.starts_with("skipped: ")) {   \
      GTEST_SKIP() << result_text;                \
    }                                             \
    EXPECT_EQ(result_text, "");                   \
  } while (false)

// A program whose guards, killed or not, have to find an orphan in a session of its own. All hold a pipe.
struct Family {
  Family() {
    auto [in, out] = base::make_pipe();
    process = spawn({.argv = {"/bin/sh", "-c", "(setsid sh -c 'echo >&3; exec sleep 1000' &); exec sleep 1000"},
                     .set_env = {},
                     .fds = {{out.get(), 3}}});
    out.reset();
    char byte;
    base::check("read", [&, fd = in.get()] { return ::read(fd, &byte, 1); });
    pipe = std::move(in);
  }

  // Kills it, and says what is left of it.
  std::string kill() {
    process->kill_tree();
    const auto status = process->wait(soon());
    char byte;
    return !status                                    ? "its guard has not ended"
           : *status != ExitStatus{.signal = SIGKILL} ? status->describe()
           : ::read(pipe.get(), &byte, 1) != 0        ? "something is left"
                                                      : "";
  }

  std::shared_ptr<Process> process;
  base::Fd pipe;
};

TEST(GuardNamespaces, KillsNoStrangerThatHasTheNumberOfAChildElsewhere) {
  EXPECT_NOTHING_WRONG(in_strange_land(Proc::kForeign, [] {
    Family family;
    // The numbers that /proc has for the program and its inner guard are those of strangers here.
    const Outside program = outside(family.process->pid());
    const std::vector<pid_t> strangers{fork_as(program.pid), fork_as(program.parent)};
    std::string wrong = family.kill();
    for (const pid_t stranger : strangers) {
      wrong += lives(stranger) ? "" : "; a stranger was killed";
      ::kill(stranger, SIGKILL);
      ::waitpid(stranger, nullptr, 0);
    }
    return wrong;
  }));
}

TEST(GuardNamespaces, FindsAllOfItWithoutProc) {
  EXPECT_NOTHING_WRONG(in_strange_land(Proc::kNone, [] { return Family().kill(); }));
}

// Without a guard: a worker that a fork server has forked.
TEST(GuardNamespaces, ATreeIsNotLookedForInTheProcOfAnotherNamespace) {
  EXPECT_NOTHING_WRONG(in_strange_land(Proc::kForeign, [] {
    const Outside self = outside(::getpid());
    // The root has the number that our parent has outside, where we are its child.
    const pid_t root = fork_as(self.parent);
    const pid_t stranger = fork_as(self.pid);
    Process process(root, pidfd_open(root), false);
    process.kill_tree();
    std::string wrong = process.wait(soon()) ? "" : "the process itself was not killed";
    wrong += lives(stranger) ? "" : "; a stranger was killed";
    ::kill(stranger, SIGKILL);
    while (::waitpid(-1, nullptr, 0) > 0) {
    }
    return wrong;
  }));
}

}  // namespace
}  // namespace execnet::process
