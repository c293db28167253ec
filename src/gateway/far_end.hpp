// What is behind a gateway's stream, as far as its end goes: a process here, one at a proxy, or a
// stranger of whom only the stream is known. One that a fork server has made: forked_process.hpp.
//
// Owner: its GatewayEnd. Any thread may call any method; the mutex of the gateway's connection must
// not be held.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "base/event.hpp"
#include "base/fd.hpp"
#include "base/wait.hpp"
#include "connection/connection.hpp"
#include "connection/relay.hpp"
#include "gateway/stderr_tail.hpp"
#include "loop/loop.hpp"
#include "process/oom.hpp"
#include "process/process.hpp"
#include "transport/transport.hpp"

namespace execnet::core {

class FarEnd {
 public:
  FarEnd() = default;
  virtual ~FarEnd() = default;
  FarEnd(const FarEnd&) = delete;
  FarEnd& operator=(const FarEnd&) = delete;

  // How it ended, once it has: "exit status 3", "killed by SIGKILL".
  virtual std::optional<std::string> ended() = 0;
  // Readable once it has. Throws std::system_error: it may be made for the first who asks.
  [[nodiscard]] virtual int end_fd() = 0;
  // Calls `handler`, on the loop thread, once it has, and maybe also before; until that is unwatched.
  virtual loop::Loop::Id watch_end(loop::Loop& loop, std::function<void()> handler);
  // The last it said on its stderr; empty if nothing is known of that.
  virtual std::string said() { return ""; }
  // Its worker is up, as process `worker` of this machine if that is known.
  virtual void on_serving(std::optional<pid_t> worker) { static_cast<void>(worker); }
  // This side kills it now: no other reason for its end is to be looked for.
  virtual void on_kill() { killed_here_ = true; }
  [[nodiscard]] bool killed_here() const { return killed_here_; }
  // The gateway's stream has ended.
  virtual void on_stream_end() {}
  // Nobody will ask any more: what still runs is to end.
  virtual void let_go() {}
  // The process, if it is one of ours. The others end when their stream is shut down.
  virtual process::Process* process() { return nullptr; }

 private:
  std::atomic<bool> killed_here_ = false;
};

// Sleeps until one of them may have ended: true; or to the deadline: false. If the program has closed their
// descriptors, `loop`, which watches them, is told.
bool wait_for_an_end(std::span<FarEnd* const> far_ends, loop::Loop& loop, const base::Wait& wait);

// A process of this machine. Without a pipe, somebody else has its stderr.
class LocalProcess final : public FarEnd {
 public:
  LocalProcess(std::shared_ptr<process::Process> process, base::Fd stderr_pipe, std::shared_ptr<loop::Loop> loop);

  std::optional<std::string> ended() override;
  [[nodiscard]] int end_fd() override { return process_->end_fd(); }
  std::string said() override;
  void on_serving(std::optional<pid_t> worker) override;
  process::Process* process() override { return process_.get(); }

 private:
  const std::shared_ptr<process::Process> process_;
  std::shared_ptr<StderrTail> stderr_;  // may be null

  std::mutex mutex_;
  process::OomWatch oom_;           // of the process, then of the worker behind it
  std::optional<std::string> how_;  // it ended
};

// A process that a proxy has started for us; its stream comes over a channel of the proxy's gateway.
class ProxiedProcess final : public FarEnd, public RelayOwner, public std::enable_shared_from_this<ProxiedProcess> {
 public:
  // Has it started; `stream` is the end of a socket pair whose other end is the new gateway's.
  // Throws GatewayGone.
  static std::shared_ptr<ProxiedProcess> open(std::shared_ptr<Connection> proxy, const transport::Launch& launch,
                                              base::Fd stream);
  explicit ProxiedProcess(std::shared_ptr<Connection> proxy);

  std::optional<std::string> ended() override;
  [[nodiscard]] int end_fd() override { return ended_event_.fd(); }
  std::string said() override;
  void let_go() override;

  void on_relay_change(Connection::Lock& lock) override;

 private:
  const std::shared_ptr<Connection> proxy_;
  base::Event ended_event_;
  std::shared_ptr<ChannelState> channel_;
  std::shared_ptr<Relay> relay_;
  bool last_sent_ = false;  // guarded by the proxy's connection

  std::mutex mutex_;
  std::optional<std::string> how_;  // it ended
  std::string said_;
};

// The other end of a socket.
class Stranger final : public FarEnd {
 public:
  std::optional<std::string> ended() override;
  [[nodiscard]] int end_fd() override { return ended_event_.fd(); }
  void on_stream_end() override { ended_event_.signal(); }

 private:
  base::Event ended_event_;
};

}  // namespace execnet::core
