#include "process/guard_program.hpp"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <fstream>
#include <string>

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

TEST(GuardProgram, WhereFilesInMemoryAreNeverExecutableItSaysWhatToDo) {
  const std::string end = end_where_noexec_is("2");
  if (end.starts_with("skipped: ")) {
    GTEST_SKIP() << end;
  }
  EXPECT_NE(end.find("sysctl vm.memfd_noexec=1"), std::string::npos) << end;
  EXPECT_NE(end.find("Permission denied"), std::string::npos) << end;
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
