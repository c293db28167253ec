// The gateways that one call starts, from their launch until all of them serve.
//
// Those over ssh are launched as the servers can take it. An sshd with its stock settings refuses connections while ten
// are logging in (MaxStartups), so at most kAtOnce of a target are coming. Jump hosts, other programs and other threads
// have their share: whom a server refuses for now is launched again after a pause. And if there is a terminal, several
// are launched with the order not to ask for a password or the like (BatchMode). Who fails for want of an answer may
// ask then, one after the other.
//
// Owner: the call. Its thread only.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include <execnet/error.hpp>
#include <execnet/xspec.hpp>

#include "base/wait.hpp"
#include "gateway/gateway_end.hpp"

namespace execnet::core {

// What was tried to start one gateway.
struct Attempt {
  base::Clock::time_point since = {};
  int number = 1;
  bool may_ask = true;
  std::optional<HostNotFound> refusal = std::nullopt;  // the last one

  // Returns when one that has failed may be launched again: after a pause, or allowed to ask. Throws `failure` if not.
  void wait_to_repeat(const GatewayEnd& failed, HostNotFound failure, const base::Wait& wait);
};

class Starting {
 public:
  static constexpr std::size_t kAtOnce = 8;

  // Launches the one of that index. If it must not ask, its ssh is told so.
  using Launch = std::function<std::shared_ptr<GatewayEnd>(std::size_t index, bool may_ask)>;
  // Is told of each that was launched, when gateways() has it.
  using Announce = std::function<void(const std::shared_ptr<GatewayEnd>&)>;

  // `may_ask`, of those over ssh: may_ask_at_once(specs). REQUIRES: the specifications outlive it.
  Starting(const std::vector<XSpec>& specs, bool may_ask, Launch launch, Announce announce, const base::Wait& wait);
  Starting(const Starting&) = delete;
  Starting& operator=(const Starting&) = delete;

  // Launches the next one, as soon as its target can take it. Throws what wait_for_all() does.
  void launch_next();
  // Waits until all that were launched serve. Throws HostNotFound for one that does not.
  void wait_for_all();
  // In the order of the specifications, those that were launched.
  [[nodiscard]] const std::vector<std::shared_ptr<GatewayEnd>>& gateways() const { return gateways_; }
  // The same, for who takes them over: it is not used any more.
  [[nodiscard]] std::vector<std::shared_ptr<GatewayEnd>> take_gateways() { return std::move(gateways_); }
  // How many of these serve already: the first ones.
  [[nodiscard]] std::size_t served() const { return served_; }

 private:
  // Once: looks at all that are coming, launches anew who may try again, counts those that serve. Throws.
  void look();
  void on_failure(std::size_t index);
  void check_time(std::size_t index);
  [[nodiscard]] std::size_t coming_to(const XSpec& spec) const;

  const std::vector<XSpec>& specs_;
  const Launch launch_;
  const Announce announce_;
  const base::Wait wait_;
  const bool ask_at_once_;
  std::vector<std::shared_ptr<GatewayEnd>> gateways_;
  std::vector<Attempt> attempts_;  // of each
  std::size_t served_ = 0;
  base::Clock::time_point progress_;
};

// Whether those over ssh may ask when they are launched for the first time.
bool may_ask_at_once(const std::vector<XSpec>& specs);

// The same for a single one, which `launch` gives: with that `may_ask` the first time.
std::shared_ptr<GatewayEnd> start_one(const std::function<std::shared_ptr<GatewayEnd>(bool may_ask)>& launch,
                                      bool may_ask, const base::Wait& wait);

}  // namespace execnet::core
