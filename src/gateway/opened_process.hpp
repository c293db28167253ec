// A process that this worker has started, or had forked, as a proxy: its stream is joined to the channel that the
// OPEN frame came on. The coordinator's end of that channel is a ProxiedProcess.
//
// Owner: its WorkerEnd, until it is over. Lives on the loop thread; needs no interpreter. The program
// is started there, too: that is a vfork, and takes a millisecond.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "base/buffer.hpp"
#include "connection/connection.hpp"
#include "connection/relay.hpp"
#include "gateway/far_end.hpp"
#include "gateway/fork_servers.hpp"
#include "transport/transport.hpp"

namespace execnet::core {

// When a worker's coordinator is gone, before running code is interrupted. A guard knows the same moment.
inline constexpr std::chrono::milliseconds kLostMoment{100};

class OpenedProcess final : public RelayOwner, public std::enable_shared_from_this<OpenedProcess> {
 public:
  // Will be started soon, by one of `forks` if OPEN says so. Throws DataFormatError for a payload that is not of OPEN,
  // and std::system_error for want of a thread.
  static std::shared_ptr<OpenedProcess> open(Connection::Lock& lock, std::shared_ptr<Connection> connection,
                                             std::shared_ptr<ChannelState> channel, const base::Buffer& payload,
                                             std::shared_ptr<ForkServers> forks);
  OpenedProcess(std::shared_ptr<Connection> connection, std::shared_ptr<ChannelState> channel, transport::Launch launch,
                std::shared_ptr<ForkServers> forks);
  ~OpenedProcess() override;
  OpenedProcess(const OpenedProcess&) = delete;
  OpenedProcess& operator=(const OpenedProcess&) = delete;

  // Called once, on the loop thread, when the process is gone and its channel closed.
  void when_over(std::function<void()> over) { over_ = std::move(over); }
  // Ends all of them: those first that do so within some time when their stream ends, then the others, by force.
  // REQUIRES: on the loop thread, or there is none any more.
  static void end_all(const std::vector<std::shared_ptr<OpenedProcess>>& opened, std::chrono::milliseconds within);
  // For a worker to end by itself, with its code interrupted, when the coordinator or the proxy has ended its stream.
  static constexpr std::chrono::milliseconds kEndsWithin{300};

  void on_relay_change(Connection::Lock& lock) override;

 private:
  void guarded(void (OpenedProcess::*what)());
  void later(std::chrono::milliseconds delay, void (OpenedProcess::*what)());
  void start();
  void look();
  void kill();
  void close(const std::string& error);

  const std::shared_ptr<Connection> connection_;
  const std::shared_ptr<ChannelState> channel_;
  const transport::Launch launch_;
  const std::shared_ptr<ForkServers> forks_;
  std::shared_ptr<Relay> relay_;
  std::function<void()> over_;
  std::shared_ptr<FarEnd> far_end_;  // a LocalProcess or a ForkedProcess
  loop::Loop::Id end_watch_ = 0;
  bool serves_ = false;
  bool ending_ = false;
};

}  // namespace execnet::core
