#include "process/guard_program.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <string>

#include "base/syscall.hpp"
#include "elsewhere.hpp"
#include "process/spawn.hpp"

namespace execnet::process {
namespace {

using namespace std::chrono_literals;

std::string end_of_a_program() {
  const auto status =
      spawn({.argv = {"sh", "-c", "exit 7"}, .set_env = {}, .fds = {}})->wait({.deadline = base::Clock::now() + 20s});
  return status ? status->describe() : "it did not end";
}

// The same where the kernel has another rule for files in memory; the rule is one of the PID namespace.
std::string end_where_noexec_is(const char* value) {
  return testing::in_pid_namespace([&]() -> std::string {
    std::ofstream rule("/proc/sys/vm/memfd_noexec");
    rule << value << std::flush;
    return rule ? end_of_a_program() : "skipped: vm.memfd_noexec cannot be set in a PID namespace here";
  });
}

TEST(GuardProgram, RunsWhereFilesInMemoryAreExecutableOnRequestOnly) {
  const std::string end = end_where_noexec_is("1");
  if (end.starts_with("skipped: ")) {
    GTEST_SKIP() << end;
  }
  EXPECT_EQ(end, "exit status 7");
}

TEST(GuardProgram, RunsAsACopyOfThisProgramWhereFilesInMemoryAreNeverExecutable) {
  const std::string end = end_where_noexec_is("2");
  if (end.starts_with("skipped: ")) {
    GTEST_SKIP() << end;
  }
  EXPECT_EQ(end, "exit status 7");
}

// Also where even who may exceed limits must not write to files.
TEST(GuardProgram, RunsWhereFilesMayNotBeWritten) {
  for (const rlim_t most : {0, 1, 4096, 16384}) {
    EXPECT_EQ(testing::elsewhere([&] {
                const rlimit limit{most, most};
                base::check("setrlimit", [&] { return ::setrlimit(RLIMIT_FSIZE, &limit); });
                return end_of_a_program();
              }),
              "exit status 7")
        << most;
  }
}

TEST(GuardProgram, RunsWithoutWhatTheKernelMayRefuse) {
  constexpr int kPidfdOpen = 434, kPidfdSendSignal = 424, kClone3 = 435, kCloseRange = 436;
  for (const int call : {static_cast<int>(SYS_memfd_create), static_cast<int>(SYS_execveat),
#ifdef SYS_vfork
                         static_cast<int>(SYS_vfork),
#endif
                         static_cast<int>(SYS_prctl), kPidfdOpen, kPidfdSendSignal, kClone3, kCloseRange}) {
    for (const int error : {ENOSYS, EPERM}) {
      EXPECT_EQ(testing::elsewhere([&] {
                  testing::refuse_system_call(call, error);
                  return end_of_a_program();
                }),
                "exit status 7")
          << "call " << call << " with " << error;
    }
  }
}

TEST(GuardProgram, RunsWithAKernelThatDoesNotKnowTheRequest) {
  constexpr unsigned kMfdExec = 0x10;
  EXPECT_EQ(testing::elsewhere([] {
              testing::refuse_system_call(SYS_memfd_create, EINVAL, kMfdExec);
              return end_of_a_program();
            }),
            "exit status 7");
}

}  // namespace
}  // namespace execnet::process
