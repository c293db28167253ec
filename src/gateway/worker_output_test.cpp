#include "gateway/worker_output.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/syscall.hpp"
#include "base/wait.hpp"

namespace execnet::core {
namespace {

using namespace std::chrono_literals;

class WorkerOutputTest : public testing::Test {
 protected:
  WorkerOutputTest() {
    auto [ours, theirs] = base::socket_pair();
    peer_ = std::move(theirs);
    connection_ = std::make_shared<Connection>(std::move(ours), loop_, Side::kCoordinator);
    connection_->start({});
    auto [read, write] = base::make_pipe();
    stdout_ = std::move(write);
    output_ = std::make_shared<WorkerOutput>(std::move(read), connection_);
  }

  ~WorkerOutputTest() override {
    open_gate();
    output_->finish();
    connection_->finish("the test is over");
    connection_->dispatcher().join({.deadline = base::Clock::now() + 20s});
    loop_->stop();
  }

  void begin() {
    const bool for_greenlet = output_->begin(
        [this](std::string_view text) {
          std::unique_lock lock(mutex_);
          if (text.empty()) {
            return true;
          }
          calls_.emplace_back(text);
          changed_.notify_all();
          changed_.wait_for(lock, 20s, [this] { return gate_is_open_; });
          return works_;
        },
        false);
    EXPECT_FALSE(for_greenlet);
  }

  void open_gate() {
    const std::lock_guard lock(mutex_);
    gate_is_open_ = true;
    changed_.notify_all();
  }

  void print(std::string_view text) {
    while (!text.empty()) {
      text.remove_prefix(static_cast<std::size_t>(
          base::check("write", [&] { return ::write(stdout_.get(), text.data(), text.size()); })));
    }
  }

  // Waits until all of the text has come.
  bool has_come(const std::string& text) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, 20s, [&] { return said() == text; });
  }

  // REQUIRES the mutex, or that the dispatcher has ended.
  std::string said() const {
    std::string all;
    for (const std::string& call : calls_) {
      all += call;
    }
    return all;
  }

  // As GatewayEnd ends.
  void end() {
    output_->finish();
    connection_->finish("it is gone");
    connection_->dispatcher().join({.deadline = base::Clock::now() + 20s});
  }

  std::shared_ptr<loop::Loop> loop_ = std::make_shared<loop::Loop>();
  base::Fd peer_;
  std::shared_ptr<Connection> connection_;
  base::Fd stdout_;
  std::shared_ptr<WorkerOutput> output_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> calls_;
  bool gate_is_open_ = true;
  bool works_ = true;
};

TEST_F(WorkerOutputTest, LinesComeWholeAndTheRestAtTheEnd) {
  begin();
  print("one\ntw");
  EXPECT_TRUE(has_come("one\n"));
  print("o\nthree");
  EXPECT_TRUE(has_come("one\ntwo\n"));
  end();
  EXPECT_EQ(said(), "one\ntwo\nthree");
  EXPECT_EQ(calls_, (std::vector<std::string>{"one\n", "two\n", "three"}));
}

TEST_F(WorkerOutputTest, WhatWasPrintedBeforeItBeginsComesToo) {
  print("early\nand ");
  begin();
  EXPECT_TRUE(has_come("early\n"));
  print("late");
  end();
  EXPECT_EQ(said(), "early\nand late");
}

TEST_F(WorkerOutputTest, ItMayBeginAfterTheEnd) {
  print("all there ever was");
  output_->finish();
  connection_->finish("it is gone");
  begin();
  EXPECT_TRUE(has_come("all there ever was"));
}

TEST_F(WorkerOutputTest, ALineOfAnyLengthComesInParts) {
  begin();
  std::string line;
  while (line.size() < 300'000) {
    line += "\u20ac";  // three bytes each: 64 KiB is inside of one
  }
  print(line);
  stdout_.reset();
  end();
  EXPECT_EQ(said(), line);
  EXPECT_GT(calls_.size(), 2U);
  for (const std::string& call : calls_) {
    EXPECT_EQ(call.size() % 3, 0U);
  }
}

TEST_F(WorkerOutputTest, WhoPrintsWaitsForAFunctionThatTakesItsTime) {
  gate_is_open_ = false;
  begin();
  base::check("fcntl", [&] { return ::fcntl(stdout_.get(), F_SETFL, O_NONBLOCK); });
  std::string printed;
  const std::string line = std::string(99, 'x') + "\n";
  // Until the pipe stays full: the loop has paused.
  pollfd room{.fd = stdout_.get(), .events = POLLOUT, .revents = 0};
  while (base::poll_until(std::span(&room, 1), {.deadline = base::Clock::now() + 500ms})) {
    if (::write(stdout_.get(), line.data(), line.size()) == static_cast<ssize_t>(line.size())) {
      printed += line;
    }
    ASSERT_LT(printed.size(), 1'000'000U) << "it is kept without end";
  }
  open_gate();
  EXPECT_TRUE(base::poll_until(std::span(&room, 1), {.deadline = base::Clock::now() + 20s}));
  EXPECT_TRUE(has_come(printed));
}

TEST_F(WorkerOutputTest, OneThatHasFailedIsNotCalledAgainAndNobodyWaits) {
  works_ = false;
  begin();
  print("first\n");
  EXPECT_TRUE(has_come("first\n"));
  for (int i = 0; i < 10; ++i) {  // more than the pipe, and what may be under way
    print(std::string(50'000, 'x') + "\n");
  }
  end();
  EXPECT_EQ(said(), "first\n");
}

TEST_F(WorkerOutputTest, WhatHasOutlivedTheWorkerIsNotWaitedFor) {
  begin();
  print("of the worker");
  end();  // and the write end is still open
  EXPECT_EQ(said(), "of the worker");
  EXPECT_EQ(connection_->dispatcher().is_over(connection_->lock()), true);
}

TEST_F(WorkerOutputTest, ToFinishTwiceIsAsGoodAsOnce) {
  begin();
  print("once\n");
  output_->finish();
  output_->finish();
  end();
  EXPECT_EQ(said(), "once\n");
}

}  // namespace
}  // namespace execnet::core
