// The coordinator's end of a gateway: what is behind it, the connection to it, and what it said of itself.
//
// Owner: execnet::Gateway. Any thread may call any method.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include <execnet/remote_info.hpp>
#include <execnet/xspec.hpp>

#include "base/buffer.hpp"
#include "base/wait.hpp"
#include "connection/channel_handle.hpp"
#include "connection/connection.hpp"
#include "gateway/far_end.hpp"
#include "gateway/fork_servers.hpp"
#include "gateway/worker_output.hpp"
#include "loop/loop.hpp"
#include "transport/transport.hpp"

namespace execnet::core {

class GatewayEnd final : public ConnectionOwner, public std::enable_shared_from_this<GatewayEnd> {
 public:
  // Has a process started or forked, or connects to a socket, and sends everything the worker needs; waits for
  // no answer of its. `other` is the gateway that is the proxy, or is to listen. REQUIRES: the specification is
  // validated and has an id. Throws HostNotFound.
  // `command`, if not empty, is run in place of ours: see Membership::start.
  // If it is over ssh and may not ask, ssh is told so. `trace` is where both ends trace to, if it is not null.
  static std::shared_ptr<GatewayEnd> start(const XSpec& spec, const std::vector<std::string>& command, bool may_ask,
                                           const transport::LocalPython& python,
                                           const std::shared_ptr<GatewayEnd>& other, std::shared_ptr<loop::Loop> loop,
                                           ForkServers::Batch& forks, const std::shared_ptr<const TraceOutput>& trace,
                                           const base::Wait& wait);
  ~GatewayEnd() override;
  GatewayEnd(const GatewayEnd&) = delete;
  GatewayEnd& operator=(const GatewayEnd&) = delete;

  // From its launch until it serves: connect_timeout=, or a minute.
  [[nodiscard]] std::chrono::milliseconds starts_within() const;
  // Waits so long until the worker serves. Throws HostNotFound with everything known about why it does not;
  // the process is gone then.
  void wait_started(const base::Wait& wait, std::chrono::milliseconds within);
  void wait_started(const base::Wait& wait) { wait_started(wait, starts_within()); }
  // After such an end, of one over ssh: the server, or one on the way there, takes no more connections for now.
  [[nodiscard]] bool was_refused_for_now() const;
  // After such an end: ssh had to ask for something, and was not to.
  [[nodiscard]] bool wanted_answers() const;
  // How far it is, now or by the deadline of the wait.
  enum class Start : std::uint8_t { kComing, kServes, kFailed };
  [[nodiscard]] Start start_until(const base::Wait& wait);

  [[nodiscard]] const std::string& id() const { return id_; }
  [[nodiscard]] const XSpec& spec() const { return spec_; }
  // The proxy, or who has listened; null if there was none or it is no more. Not by its id: that may have
  // been given to another one since.
  [[nodiscard]] std::shared_ptr<GatewayEnd> leader() const { return leader_.lock(); }
  // "Popen", "Ssh", "Socket", "VagrantSsh"
  [[nodiscard]] const std::string& kind() const { return launch_.kind; }
  // The host of an ssh gateway, host and port of a socket; else empty.
  [[nodiscard]] const std::string& address() const { return launch_.address; }
  [[nodiscard]] const RemoteInfo& info() const { return *info_; }
  [[nodiscard]] const std::shared_ptr<Connection>& connection() const { return connection_; }
  [[nodiscard]] FarEnd& far_end() const { return *far_end_; }
  [[nodiscard]] loop::Loop& loop() const { return *loop_; }

  // Runs what the encoded EXEC payload says; the channel to it, with the gateway's window or without one.
  std::shared_ptr<ChannelHandle> exec(base::Rope payload, const base::Wait& wait, bool windowed = true);
  std::shared_ptr<ChannelHandle> newchannel();
  Dict remote_status(const base::Wait& wait);
  void reconfigure(StringConfig strings);

  // Has what the worker prints given to `take`: see WorkerOutput::begin. REQUIRES: its specification has
  // stdout=callback, and the call is the first.
  [[nodiscard]] bool begin_output(WorkerOutput::Take take, bool in_greenlet) {
    return output_->begin(std::move(take), in_greenlet);
  }

  // Tells the worker to end. Once; never waits.
  void exit();
  [[nodiscard]] bool hasreceiver() const;
  // See execnet::Gateway.
  [[nodiscard]] std::optional<int> returncode() const;
  // Waits until the other side is gone. Throws TimeoutError.
  void join(const base::Wait& wait);
  // The process is gone: declares the gateway terminated.
  void finish_terminated();

  void on_hello(Connection::Lock& lock, base::Buffer payload) override;
  void on_exec(Connection::Lock& lock, const std::shared_ptr<ChannelState>& channel, base::Buffer payload) override;
  void on_open(Connection::Lock& lock, const std::shared_ptr<ChannelState>& channel, base::Buffer payload) override;
  void on_status_request(Connection::Lock& lock, std::uint32_t channel) override;
  void on_terminate(Connection::Lock& lock) override;
  void on_stream_end(const std::string& error) override;

 private:
  GatewayEnd(const XSpec& spec, const std::shared_ptr<GatewayEnd>& leader, transport::Launch launch,
             std::shared_ptr<FarEnd> far_end, base::Fd stream, std::shared_ptr<loop::Loop> loop);
  void run(base::Buffer first, bool hello_follows, const std::shared_ptr<const TraceOutput>& trace);
  [[nodiscard]] bool is_native() const { return info_->implementation == "native"; }
  [[nodiscard]] transport::LocalPython python_for_others(const transport::LocalPython& ours) const;
  void on_far_end_ended();
  void unwatch_end();
  void finish();
  void finish_output() noexcept;
  // "gateway gw0 (popen) is gone: killed by SIGKILL; last on its stderr: ..."
  [[nodiscard]] std::string cause();
  [[noreturn]] void fail_start(const std::string& why, const base::Wait& wait);

  const XSpec spec_;
  const std::string id_;
  const std::weak_ptr<GatewayEnd> leader_;
  const transport::Launch launch_;
  const std::shared_ptr<loop::Loop> loop_;
  const std::shared_ptr<FarEnd> far_end_;
  const std::shared_ptr<Connection> connection_;
  std::shared_ptr<WorkerOutput> output_;  // constant from run() on; null: nobody takes what the worker prints
  loop::Loop::Id end_watch_ = 0;

  // Guarded by the connection's mutex until wait_started has returned; constant after that.
  std::optional<RemoteInfo> info_;
  std::optional<std::string> refusal_;  // why the worker says it cannot serve
  std::string failed_with_;             // of its stderr, when wait_started has thrown; for the thread that starts it

  std::mutex mutex_;
  std::optional<std::string> stream_error_;  // set when the stream has ended
  bool exit_sent_ = false;
};

}  // namespace execnet::core
