// What a group is inside: its gateways from the moment they are started until their processes are
// gone, their ids, and the loop and the fork servers they share, which run only while there are any.
//
// Owner: execnet::Group, or the Python Group, and each thread that is in one of its methods: the owner may go
// meanwhile. Any thread may call any method. In a process forked from the one that made it, it can only be destroyed,
// which leaves the parent's gateways alone.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <execnet/xspec.hpp>

#include "base/fork.hpp"
#include "base/wait.hpp"
#include "gateway/fork_servers.hpp"
#include "gateway/gateway_end.hpp"
#include "loop/loop.hpp"
#include "transport/transport.hpp"

namespace execnet::core {

class Membership {
 public:
  explicit Membership(transport::LocalPython python = {}) : python_(std::move(python)) {}
  // Ends what is left if end() was not called.
  ~Membership();
  Membership(const Membership&) = delete;
  Membership& operator=(const Membership&) = delete;

  // See execnet::Group for these.
  void allocate_id(XSpec& spec);
  // `commands`, if there are any, is a command line for each specification, in place of ours; an empty one is none. It
  // is to run transport::kBootstrapLine. REQUIRES of a specification that has one: no via, no socket, no preload.
  // `outputs`, if there are any, says for each whether GatewayEnd::begin_output() will be called: until then its worker
  // can print no more than a pipe holds.
  std::vector<std::shared_ptr<GatewayEnd>> start(std::vector<XSpec> specs, const base::Wait& wait,
                                                 const std::vector<std::vector<std::string>>& commands = {},
                                                 const std::vector<bool>& outputs = {});
  // Those that are just being started, too: start() throws then.
  bool terminate(std::optional<base::Seconds> timeout, const base::Wait& wait);
  // Terminates what is left, in about a second: for the owner, when it goes.
  void end() noexcept;
  // Begins to terminate, and does not wait: for who is about to terminate several groups.
  void tell_to_exit();
  [[nodiscard]] std::vector<std::shared_ptr<GatewayEnd>> members() const;
  [[nodiscard]] base::Seconds grace() const;
  void set_grace(base::Seconds grace);  // throws SpecError
  [[nodiscard]] XSpec defaultspec() const;
  void set_defaultspec(const XSpec& spec);

  // See transport::bootstrap_args. REQUIRES: spec.validate() has passed.
  [[nodiscard]] std::vector<std::string> launch_args(const XSpec& spec) const;

  // Tells a gateway to exit. It is no member from then on; terminate() still waits for its process.
  void exit(GatewayEnd& gateway);

 private:
  [[nodiscard]] std::shared_ptr<GatewayEnd> member(const std::string& id) const;
  [[nodiscard]] bool is_taken(const std::string& id) const;
  // Returns the number of terminations until then, too.
  std::pair<std::vector<XSpec>, std::size_t> reserve(std::vector<XSpec> specs);
  std::shared_ptr<loop::Loop> loop();
  std::shared_ptr<ForkServers> fork_servers();
  std::shared_ptr<const TraceOutput> trace();
  // The ssh connection that is to carry that gateway, which is started if there is none yet; null if it needs none.
  std::shared_ptr<GatewayEnd> carrier(const XSpec& spec, bool may_ask, ForkServers::Batch& forks,
                                      const base::Wait& wait);
  // Ends the fork servers and carriers that nobody needs, forgets who has ended, and stops the loop if nobody is left.
  void clean_up(const base::Wait& wait);
  std::vector<std::shared_ptr<GatewayEnd>> take_leaving(const std::function<bool(const GatewayEnd&)>& which);

  const base::MadeHere made_here_;
  const transport::LocalPython python_;
  std::atomic<bool> ended_ = false;
  std::mutex carrier_mutex_;  // held while one is looked for and started; taken before the other one
  mutable std::mutex mutex_;
  XSpec defaultspec_{"popen"};
  base::Seconds grace_ = XSpec::kGrace;
  std::size_t next_auto_id_ = 0;
  std::size_t terminations_ = 0;                       // have begun
  std::set<std::string> starting_;                     // ids of gateways that are not members yet
  std::vector<std::shared_ptr<GatewayEnd>> members_;   // in the order they were made
  std::vector<std::shared_ptr<GatewayEnd>> coming_;    // started, and not yet known to serve
  std::vector<std::shared_ptr<GatewayEnd>> leaving_;   // told to exit or killed, process not yet seen gone
  std::vector<std::shared_ptr<GatewayEnd>> carriers_;  // proxies of members, that are none: transport::carrier_of
  std::shared_ptr<loop::Loop> loop_;
  std::shared_ptr<ForkServers> fork_servers_;                // of that loop
  std::optional<std::shared_ptr<const TraceOutput>> trace_;  // as was wanted when the first gateway was made
  std::weak_ptr<ForkServers> ending_servers_;                // those that somebody is ending, who then stops the loop
};

}  // namespace execnet::core
