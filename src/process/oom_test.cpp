#include "process/oom.hpp"

#include <gtest/gtest.h>
#include <time.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace execnet::process {
namespace {

constexpr pid_t kPid = 4711;

// What a kernel says, in files of ours.
class Oom : public testing::Test {
 protected:
  Oom() {
    std::string name = testing::TempDir() + "execnet-oom-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
    files_ = {.proc = root_ / "proc", .log = root_ / "kmsg"};
  }
  ~Oom() override { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  [[nodiscard]] std::string mount(const std::string& top, const std::string& at, const std::string& rest) const {
    return "35 31 0:32 " + top + " " + (root_ / at).string() + " rw,relatime - " + rest + "\n";
  }
  void log_at(std::int64_t microseconds) const {
    write("kmsg", "3,812," + std::to_string(microseconds) +
                      ",-;Memory cgroup out of memory: Killed process 4711 (python3) total-vm:1kB\n");
  }
  static std::int64_t now() {
    timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return std::int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000;
  }

  std::filesystem::path root_;
  KernelFiles files_;
};

TEST_F(Oom, WithoutFilesThereIsNoVerdict) {
  EXPECT_EQ(OomWatch(kPid, files_).verdict(), std::nullopt);
  EXPECT_TRUE(oom_counts(::getpid(), "/proc").size() <= 2);
}

TEST_F(Oom, IsReadFromAGroupOfVersion2) {
  write("proc/self/mountinfo", mount("/", "cgroup", "cgroup2 cgroup rw,nsdelegate"));
  write("proc/4711/cgroup", "1:cpu:/other\n0::/jobs/one\n");
  write("cgroup/jobs/one/memory.events", "low 0\nhigh 0\nmax 20\noom 1\noom_kill 1\noom_group_kill 0\n");
  const OomWatch watch(kPid, files_);
  EXPECT_EQ(watch.verdict(), std::nullopt);  // that one was another
  write("cgroup/jobs/one/memory.events", "low 0\nhigh 0\nmax 20\noom 2\noom_kill 2\noom_group_kill 0\n");
  EXPECT_EQ(watch.verdict(), "killed by the out-of-memory killer, as its control group /jobs/one has counted");
}

TEST_F(Oom, IsReadFromAGroupOfVersion1ThatIsMountedInAContainer) {
  write("proc/self/mountinfo", "a line of another form\n" + mount("/", "other", "cgroup cgroup rw,cpu") +
                                   mount("/docker/1", "memory", "cgroup cgroup rw,hugetlb,memory"));
  write("proc/4711/cgroup", "5:cpu:/docker/1/jobs\n4:hugetlb,memory:/docker/1/jobs\n0::/\n");
  write("memory/jobs/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n");
  const OomWatch watch(kPid, files_);
  write("memory/jobs/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n");
  EXPECT_EQ(watch.verdict(), "killed by the out-of-memory killer, as its control group /docker/1/jobs has counted");
}

TEST_F(Oom, IsReadFromTheGroupThatItWasMovedToAndTheOldOneStaysIfItIsGone) {
  write("proc/self/mountinfo", mount("/", "cgroup", "cgroup2 cgroup rw"));
  write("proc/4711/cgroup", "0::/old\n");
  write("cgroup/old/memory.events", "oom_kill 5\n");
  write("cgroup/new/memory.events", "oom_kill 0\n");
  OomWatch watch(kPid, files_);
  write("proc/4711/cgroup", "0::/new\n");
  watch.follow(kPid);
  EXPECT_EQ(watch.verdict(), std::nullopt);
  std::filesystem::remove_all(root_ / "proc/4711");
  watch.follow(kPid);
  write("cgroup/new/memory.events", "oom_kill 1\n");
  EXPECT_EQ(watch.verdict(), "killed by the out-of-memory killer, as its control group /new has counted");
}

TEST_F(Oom, IsReadFromTheLogUnlessItIsOlderThanTheProcess) {
  log_at(now());
  const OomWatch watch(kPid, files_);
  EXPECT_EQ(watch.verdict(), std::nullopt);
  log_at(now() + 1000);
  EXPECT_EQ(watch.verdict(), "killed by the out-of-memory killer, as the kernel's log says");
  EXPECT_EQ(OomWatch(471, files_).verdict(), std::nullopt);
}

TEST_F(Oom, IsAskedForAfterSigkillOnly) {
  const OomWatch watch(kPid, files_);
  log_at(now() + 1000);
  EXPECT_EQ(describe_end({.signal = SIGTERM}, watch), "killed by SIGTERM");
  EXPECT_EQ(describe_end({.code = 3}, watch), "exit status 3");
  EXPECT_EQ(describe_end({.signal = SIGKILL}, watch),
            "killed by SIGKILL; killed by the out-of-memory killer, as the kernel's log says");
}

}  // namespace
}  // namespace execnet::process
