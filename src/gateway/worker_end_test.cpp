#include "gateway/worker_end.hpp"

#include <dirent.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <memory>
#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "base/syscall.hpp"
#include "connection/value_message.hpp"
#include "hello.hpp"
#include "wire/frame.hpp"

namespace execnet::core {
namespace {

using std::chrono::milliseconds;
using wire::FrameType;
using Wanted = WorkerEnd::Wanted;

std::string frame(FrameType type, std::uint32_t channel = 0, std::string_view payload = {}) {
  const auto header =
      wire::pack({.type = type, .channel = channel, .length = static_cast<std::uint32_t>(payload.size())});
  return std::string(header.data(), header.size()).append(payload);
}

std::string hello_with(const std::string& key, Value value) {
  Dict hello = decode_value(testing::coordinator_hello().view()).as<Dict>();
  hello[key] = std::move(value);
  return frame(FrameType::kHello, 0, encode_value(Value(std::move(hello))).view());
}

std::size_t threads() {
  std::size_t count = 0;
  DIR* const tasks = ::opendir("/proc/self/task");
  while (const dirent* entry = ::readdir(tasks)) {
    count += entry->d_name[0] != '.' ? 1 : 0;
  }
  ::closedir(tasks);
  return count;
}

// A worker whose coordinator is the test, which has said all of this already.
class Resting : public ::testing::Test {
 protected:
  Wanted rest(const std::string& said, WorkerEnd::Patience patience = {}) {
    auto [ours, theirs] = base::socket_pair();
    coordinator = std::move(ours);
    EXPECT_EQ(::send(coordinator.get(), said.data(), said.size(), 0), static_cast<ssize_t>(said.size()));
    end = WorkerEnd::open(std::move(theirs), [](const WorkerEnd::Task&) { return std::nullopt; }, patience);
    return end->rest({}, [this](const WorkerSetup& setup) {
      taken = setup.id;
      threads_at_rest = threads();
    });
  }
  void TearDown() override {
    if (end) {
      end->stop();
    }
  }

  base::Fd coordinator;
  std::shared_ptr<WorkerEnd> end;
  std::string taken;
  std::size_t threads_at_rest = 0;
};

TEST_F(Resting, AnswersHelloWithoutAThreadAndEndsWhenTold) {
  const std::size_t before = threads();
  EXPECT_EQ(rest(hello_with("id", "gw7") + frame(FrameType::kTerminate)), Wanted::kForNothing);
  EXPECT_EQ(taken, "gw7");
  EXPECT_EQ(threads_at_rest, before);
  std::string answer(wire::kMagic.size(), ' ');
  EXPECT_EQ(::recv(coordinator.get(), answer.data(), answer.size(), MSG_WAITALL), static_cast<ssize_t>(answer.size()));
  EXPECT_EQ(answer, wire::kMagic);
}

TEST_F(Resting, LeavesASetupThatTakesTheInterpreter) {
  EXPECT_EQ(rest(hello_with("chdir", "/")), Wanted::kForSetup);
  EXPECT_EQ(taken, "");
  EXPECT_EQ(end->wait_setup({})->chdir, "/");
  char byte = 0;
  EXPECT_EQ(::recv(coordinator.get(), &byte, 1, MSG_DONTWAIT), -1);
}

TEST_F(Resting, WakesForWork) { EXPECT_EQ(rest(hello_with("id", "a") + frame(FrameType::kExec, 1)), Wanted::kForWork); }

TEST_F(Resting, EndsWithoutACoordinator) {
  auto [ours, theirs] = base::socket_pair();
  ours.reset();
  end = WorkerEnd::open(std::move(theirs), [](const WorkerEnd::Task&) { return std::nullopt; });
  EXPECT_EQ(end->rest({}, [](const WorkerSetup&) {}), Wanted::kForNothing);
}

// Work that never ends, and the order to end, in one read.
TEST_F(Resting, WorkThatCameWithTheEndIsEndedInTime) {
  const auto never_ends = [this] {
    ::signal(SIGINT, SIG_IGN);
    rest(hello_with("id", "a") + frame(FrameType::kExec, 1) + frame(FrameType::kTerminate),
         {.terminated = milliseconds(1)});
    for (;;) {
      ::pause();
    }
  };
  EXPECT_EXIT(never_ends(), ::testing::ExitedWithCode(1), "");
}

// What the process still waits for when no task runs any more.
TEST_F(Resting, WhoWasToldToEndHasLessTimeWithoutACoordinator) {
  const auto never_ends = [this] {
    ::signal(SIGINT, SIG_IGN);
    rest(hello_with("id", "a") + frame(FrameType::kExec, 1) + frame(FrameType::kTerminate),
         {.terminated = std::chrono::hours(1), .lost = milliseconds(1)});
    end->serve({});
    coordinator.reset();
    for (;;) {
      ::pause();
    }
  };
  EXPECT_EXIT(never_ends(), ::testing::ExitedWithCode(1), "");
}

TEST_F(Resting, WithoutACoordinatorCodeThatDoesNotReactHasTheGraceOfHello) {
  const auto never_ends = [this] {
    ::signal(SIGINT, SIG_IGN);
    rest(hello_with("grace", 1) + frame(FrameType::kExec, 1), {.terminated = std::chrono::hours(1)});
    coordinator.reset();
    end->serve({});
    for (;;) {
      ::pause();
    }
  };
  EXPECT_EXIT(never_ends(), ::testing::ExitedWithCode(1), "");
}

}  // namespace
}  // namespace execnet::core
