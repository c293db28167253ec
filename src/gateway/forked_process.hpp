// What is behind the stream of a gateway whose worker a fork server makes.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/event.hpp"
#include "base/fd.hpp"
#include "gateway/far_end.hpp"
#include "gateway/stderr_tail.hpp"
#include "loop/loop.hpp"
#include "process/process.hpp"

namespace execnet::core {

class ForkServer;

// A worker that was asked for.
//
// Owner: its GatewayEnd, and its ForkServer until it has ended. Any thread may call any method.
class ForkedProcess final : public FarEnd {
 public:
  ForkedProcess(std::weak_ptr<ForkServer> server, std::uint32_t number, base::Fd stderr_pipe,
                const std::shared_ptr<loop::Loop>& loop);

  std::optional<std::string> ended() override;
  // A descriptor more for each gateway would be one too many: it is made when somebody waits for the end.
  [[nodiscard]] int end_fd() override;
  loop::Loop::Id watch_end(loop::Loop& loop, std::function<void()> handler) override;
  std::string said() override;
  void on_serving(std::optional<pid_t> /*worker*/) override { stderr_->pass_on(); }
  void on_kill() override;
  void let_go() override;
  // None until it is forked.
  process::Process* process() override;

  // For its ForkServer. The first end is the one that counts. Needs no memory to succeed.
  void set_forked(std::shared_ptr<process::Process> process);  // null: not to be signalled
  void set_ended(std::string_view how, std::string_view said = "");

 private:
  const std::weak_ptr<ForkServer> server_;
  const std::uint32_t number_;
  const std::shared_ptr<loop::Loop> loop_;
  const std::shared_ptr<StderrTail> stderr_;
  std::mutex mutex_;  // guards what follows
  std::optional<base::Event> ended_event_;
  std::function<void()> handler_;  // of its end
  bool forked_ = false;
  std::shared_ptr<process::Process> process_;  // set once; null where it cannot be signalled from here
  std::optional<std::string> how_;             // it ended
  std::string said_;                           // by the fork server, if that has ended it
};

}  // namespace execnet::core
