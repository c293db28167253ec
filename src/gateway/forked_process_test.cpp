#include "gateway/forked_process.hpp"

#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>
#include <future>
#include <memory>
#include <optional>

#include "base/syscall.hpp"
#include "gateway/fork_server.hpp"

namespace execnet::core {
namespace {

using namespace std::chrono_literals;

// Of a fork server that is gone already: what there is to do without it.
class ForkedProcessTest : public ::testing::Test {
 protected:
  ForkedProcessTest() { loop_->start(); }
  ~ForkedProcessTest() override { loop_->stop(); }

  static bool is_readable(int fd) {
    pollfd entry{fd, POLLIN, 0};
    return ::poll(&entry, 1, 0) == 1;
  }

  const std::shared_ptr<loop::Loop> loop_ = std::make_shared<loop::Loop>();
  ForkedProcess process_{std::weak_ptr<ForkServer>(), 1, base::make_pipe().first, loop_};
};

TEST_F(ForkedProcessTest, ItsFirstEndIsTheOneThatCounts) {
  EXPECT_EQ(process_.ended(), std::nullopt);
  process_.set_ended("exit status 3", "it said so");
  process_.set_ended("killed by SIGKILL");
  EXPECT_EQ(process_.ended(), "exit status 3");
  EXPECT_EQ(process_.said(), "it said so");
}

TEST_F(ForkedProcessTest, WhoWaitsSeesTheEndWheneverHeCame) {
  const int before = process_.end_fd();
  EXPECT_FALSE(is_readable(before));
  process_.set_ended("exit status 3");
  EXPECT_TRUE(is_readable(before));
  EXPECT_EQ(process_.end_fd(), before);

  ForkedProcess other(std::weak_ptr<ForkServer>(), 2, base::make_pipe().first, loop_);
  other.set_ended("exit status 3");
  EXPECT_TRUE(is_readable(other.end_fd()));
}

TEST_F(ForkedProcessTest, AHandlerIsCalledOnTheLoopWheneverItCame) {
  std::promise<void> before;
  std::promise<void> after;
  process_.watch_end(*loop_, [&] { before.set_value(); });
  process_.set_ended("exit status 3");
  EXPECT_EQ(before.get_future().wait_for(30s), std::future_status::ready);
  process_.watch_end(*loop_, [&] { after.set_value(); });
  EXPECT_EQ(after.get_future().wait_for(30s), std::future_status::ready);
}

TEST_F(ForkedProcessTest, IsLetGoAndKilledWithoutAServer) {
  process_.on_kill();
  process_.let_go();
  EXPECT_TRUE(process_.killed_here());
  EXPECT_EQ(process_.process(), nullptr);
  EXPECT_EQ(process_.said(), "");
}

}  // namespace
}  // namespace execnet::core
