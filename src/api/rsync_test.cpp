// RSync through the public header, to real interpreters (the pure worker).
#include <execnet/rsync.hpp>

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdlib>
#include <execnet/execnet.hpp>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>

namespace execnet {
namespace {

namespace fs = std::filesystem;

class RSyncTest : public testing::Test {
 protected:
  RSyncTest() {
    std::string pattern = fs::temp_directory_path() / "execnet-rsync-XXXXXX";
    directory = ::mkdtemp(pattern.data());
    fs::create_directories(directory / "source" / "sub");
    std::ofstream(directory / "source" / "sub" / "a") << "hello";
    std::ofstream(directory / "source" / "big") << std::string(1'000'000, 'x');
  }
  ~RSyncTest() override { fs::remove_all(directory); }

  [[nodiscard]] static std::string read(const fs::path& path) {
    std::ostringstream text;
    text << std::ifstream(path).rdbuf();
    return text.str();
  }

  fs::path directory;
};

// As long as it lives, this thread may read no more than others with its user, also if that is root.
class NoPrivileges {
 public:
  NoPrivileges() {
    ::syscall(SYS_capget, &header_, data_.data());
    auto less = data_;
    less[0].effective &= ~((1U << CAP_DAC_OVERRIDE) | (1U << CAP_DAC_READ_SEARCH));
    ::syscall(SYS_capset, &header_, less.data());
  }
  ~NoPrivileges() { ::syscall(SYS_capset, &header_, data_.data()); }
  NoPrivileges(const NoPrivileges&) = delete;
  NoPrivileges& operator=(const NoPrivileges&) = delete;

 private:
  __user_cap_header_struct header_{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data_{};
};

class Recording final : public RSync {
 public:
  using RSync::RSync;
  std::vector<std::string> calls;

 private:
  bool filter(const fs::path& path) override { return path.filename() != "secret"; }
  void report_send_file(const Gateway& gateway, const std::string& relative) override {
    calls.push_back(gateway.id() + " <= " + relative);
  }
  void report_list(const Gateway& gateway, std::uint64_t bytes) override {
    calls.push_back(gateway.id() + " list " + std::to_string(bytes));
  }
  void report_ack(const Gateway& gateway, std::uint64_t bytes) override {
    calls.push_back(gateway.id() + " ack " + std::to_string(bytes));
  }
};

TEST_F(RSyncTest, CopiesATreeToSeveralGatewaysAndThenHasNothingToDo) {
  Group group{"popen", "popen"};
  std::ofstream(directory / "source" / "secret") << "1";
  Recording sync(directory / "source");
  int finished = 0;
  for (int round = 0; round < 2; ++round) {
    for (std::size_t number = 0; number < group.size(); ++number) {
      sync.add_target(group[number], directory / ("t" + std::to_string(number)),
                      {.finished = [&finished] { ++finished; }});
    }
    sync.send();
    if (round == 0) {
      EXPECT_EQ(sync.calls.size(), 2 * 5U);
      EXPECT_EQ(std::count(sync.calls.begin(), sync.calls.end(), "gw1 <= sub/a"), 1);
      EXPECT_EQ(std::count(sync.calls.begin(), sync.calls.end(), "gw0 ack 1000000"), 1);
      sync.calls.clear();
    }
  }
  EXPECT_EQ(finished, 4);
  std::sort(sync.calls.begin(), sync.calls.end());  // whoever answers first
  EXPECT_EQ(sync.calls, (std::vector<std::string>{"gw0 list 0", "gw1 list 0"}));
  for (const char* target : {"t0", "t1"}) {
    EXPECT_EQ(read(directory / target / "sub" / "a"), "hello");
    EXPECT_EQ(read(directory / target / "big"), std::string(1'000'000, 'x'));
    EXPECT_FALSE(fs::exists(directory / target / "secret"));
  }
}

TEST_F(RSyncTest, KeepsOthersOnlyIfToldTo) {
  Group group{"popen"};
  RSync sync(directory / "source");
  for (const bool delete_others : {false, true}) {
    std::ofstream(directory / "source" / "sub" / "a") << "changed " << delete_others;
    fs::create_directories(directory / "there" / "other");
    sync.add_target(group[0], directory / "there", {.delete_others = delete_others});
    sync.send();
    EXPECT_EQ(fs::exists(directory / "there" / "other"), !delete_others);
  }
}

TEST_F(RSyncTest, WithoutATargetItThrows) {
  RSync sync(directory / "source");
  EXPECT_THROW(sync.send(), SpecError);
}

TEST_F(RSyncTest, OneBadTargetDoesNotKeepTheOthersFromTheirs) {
  Group group{"popen", "popen"};
  RSync sync(directory / "source");
  sync.add_target(group[0], "/proc/not/possible");
  sync.add_target(group[1], directory / "there");
  EXPECT_THROW(sync.send(), RemoteError);
  EXPECT_EQ(read(directory / "there" / "sub" / "a"), "hello");
}

TEST_F(RSyncTest, ATargetThatStandsStillIsNamedInTimeAndTheOthersAreFinished) {
  std::ofstream(directory / "source" / "bigger") << std::string(20'000'000, 'x');
  Group group{"popen//id=good", "popen//id=still"};
  const auto pid = group["still"].remote_exec("import os; channel.send(os.getpid())").receive<int>();
  ASSERT_EQ(::kill(pid, SIGSTOP), 0);
  RSync sync(directory / "source");
  int finished = 0;
  sync.add_target(group["still"], directory / "still", {.finished = [&] { finished += 10; }});
  sync.add_target(group["good"], directory / "good", {.finished = [&] { finished += 1; }});
  try {
    sync.send(Seconds(3));
    ADD_FAILURE() << "it did not time out";
  } catch (const TimeoutError& error) {
    EXPECT_EQ(std::string(error.what()),
              "1 of 2 targets of RSync did not finish in time, and were told to stop: still");
  }
  EXPECT_EQ(finished, 1);
  EXPECT_EQ(read(directory / "good" / "sub" / "a"), "hello");
  ASSERT_EQ(::kill(pid, SIGCONT), 0);
  // It can be sent again, and nothing half done is in the way.
  sync.add_target(group["still"], directory / "still", {.delete_others = true});
  sync.send(Seconds(60));
  EXPECT_EQ(std::distance(fs::directory_iterator(directory / "still"), fs::directory_iterator()), 3);
}

TEST_F(RSyncTest, WhatMayNotBeReadIsLeftOutAndReportedOnceForAllTargets) {
  class Noting final : public RSync {
   public:
    using RSync::RSync;
    std::vector<fs::path> unreadable;

   private:
    void report_unreadable(const fs::path& path) override { unreadable.push_back(path); }
  };
  Group group{"popen"};
  fs::permissions(directory / "source" / "big", fs::perms::none);
  fs::permissions(directory / "source" / "sub", fs::perms::none);
  Noting sync(directory / "source");
  for (const char* target : {"t0", "t1"}) {
    fs::create_directories(directory / target / "sub");
    std::ofstream(directory / target / "sub" / "kept") << "old";
    std::ofstream(directory / target / "big") << "old";
    sync.add_target(group[0], directory / target, {.delete_others = true});
  }
  {
    const NoPrivileges none;
    sync.send();
  }
  fs::permissions(directory / "source" / "sub", fs::perms::owner_all);
  EXPECT_EQ(sync.unreadable, (std::vector<fs::path>{directory / "source" / "sub", directory / "source" / "big"}));
  for (const char* target : {"t0", "t1"}) {
    fs::permissions(directory / target / "sub", fs::perms::owner_all);
    EXPECT_EQ(read(directory / target / "sub" / "kept"), "old");
    EXPECT_EQ(read(directory / target / "big"), "old");
  }
}

TEST_F(RSyncTest, SetIdBitsGoAlongOnlyIfAskedFor) {
  ASSERT_EQ(::chmod((directory / "source" / "big").c_str(), 06755), 0);
  Group group{"popen"};
  for (const bool set_ids : {false, true, false}) {
    RSync sync(directory / "source");
    sync.add_target(group[0], directory / "there", {.set_ids = set_ids});
    sync.send();
    struct stat found{};
    ASSERT_EQ(::stat((directory / "there" / "big").c_str(), &found), 0);
    EXPECT_EQ(found.st_mode & 07777U, set_ids ? 06755U : 0755U);
  }
}

TEST_F(RSyncTest, AnExceptionOfTheProgramComesOutOfSend) {
  class Failing final : public RSync {
   public:
    using RSync::RSync;

   private:
    void report_send_file(const Gateway&, const std::string&) override { throw std::out_of_range("enough"); }
  };
  Group group{"popen"};
  Failing sync(directory / "source");
  sync.add_target(group[0], directory / "there");
  EXPECT_THROW(sync.send(), std::out_of_range);
}

}  // namespace
}  // namespace execnet
