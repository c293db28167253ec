#include "gateway/ending.hpp"

#include <poll.h>

#include <algorithm>
#include <csignal>
#include <iterator>
#include <set>
#include <utility>

#include "gateway/gateway_end.hpp"
#include "process/tree.hpp"

namespace execnet::core {
namespace {

using std::chrono::milliseconds;
using Gateways = std::vector<std::shared_ptr<GatewayEnd>>;

// What goes through a proxy: the proxy gives it 0.3 s without a stream before it kills it, and is itself to have time
// to end after that.
constexpr milliseconds kStreamsGoBefore{500};
constexpr milliseconds kSigtermBefore{100};
// Even when there is no time at all: for what tidies up on SIGTERM, as ssh does with its control socket.
constexpr milliseconds kSigtermAtLeast{40};
// What killing takes, in all and for each process: stopping a tree, and the kernel's taking an interpreter apart.
constexpr milliseconds kKilling{50};
constexpr milliseconds kKillingEach{2};
// After the deadline: until nobody waits for the kernel any more, and until nobody waits for callbacks.
constexpr milliseconds kProcessesSeen{130};
constexpr milliseconds kCallbacksEnd{170};

// When what is done, all before or, with little time, shortly after the deadline. A short time is divided among them.
// Without a deadline nothing is done but wait.
struct Timetable {
  base::Deadline streams_go;
  base::Deadline sigterm;
  base::Deadline sigkill;
  base::Deadline give_up;
  base::Deadline callbacks_end;

  Timetable(const base::Deadline& deadline, std::size_t gateways) {
    if (!deadline) {
      return;
    }
    const auto patience =
        std::max(std::chrono::duration_cast<milliseconds>(*deadline - base::Clock::now()), milliseconds(0));
    const auto killing = kKilling + static_cast<int>(std::min<std::size_t>(gateways, 1000)) * kKillingEach;
    const auto planned = *deadline - std::min(killing, patience / 4);
    streams_go = planned - std::min(kStreamsGoBefore, patience / 2);
    sigterm = planned - std::min(kSigtermBefore, patience / 4);
    sigkill = std::max(planned, base::Clock::now() + kSigtermAtLeast);
    give_up = *deadline + kProcessesSeen;
    callbacks_end = *deadline + kCallbacksEnd;
  }
};

// Those that nothing else of these goes through, or was installed by.
Gateways leaves(const Gateways& gateways) {
  std::set<std::shared_ptr<GatewayEnd>> needed;
  for (const auto& gateway : gateways) {
    needed.insert(gateway->leader());
  }
  Gateways result;
  std::copy_if(gateways.begin(), gateways.end(), std::back_inserter(result),
               [&](const auto& gateway) { return !needed.contains(gateway); });
  return result;
}

// Waits for their ends, and tells each to exit that may; those that are still there at the deadline.
Gateways wait_for_ends(Gateways running, const base::Wait& wait) {
  for (;;) {
    std::erase_if(running, [](const auto& gateway) { return gateway->far_end().ended().has_value(); });
    if (running.empty()) {
      return running;
    }
    tell_to_exit(running);
    std::vector<FarEnd*> ends;
    ends.reserve(running.size());
    for (const auto& gateway : running) {
      ends.push_back(&gateway->far_end());
    }
    if (!wait_for_an_end(ends, running.front()->loop(), wait)) {
      return running;
    }
  }
}

// Returns whether there was one to be taken.
bool take_streams(const Gateways& running) {
  bool taken = false;
  for (const auto& gateway : running) {
    if (gateway->far_end().process() == nullptr) {
      gateway->connection()->shut_down();
      taken = true;
    }
  }
  return taken;
}

// Not to a proxy that something still goes through: that would outlive it.
void send_sigterm(const Gateways& running) {
  for (const auto& gateway : leaves(running)) {
    if (process::Process* process = gateway->far_end().process()) {
      process->signal(SIGTERM);
    }
  }
}

void kill(const Gateways& running) {
  std::vector<process::Process*> roots;
  for (const auto& gateway : running) {
    gateway->far_end().on_kill();
    if (process::Process* process = gateway->far_end().process()) {
      roots.push_back(process);
    }
  }
  if (!roots.empty()) {
    process::kill_trees(roots);
  }
}

}  // namespace

void tell_to_exit(const Gateways& gateways) {
  for (const auto& gateway : leaves(gateways)) {
    gateway->exit();
  }
}

Ending end_in_order(const Gateways& gateways, const base::Wait& wait) {
  const Timetable times(wait.deadline, gateways.size());
  Gateways running = wait_for_ends(gateways, wait.until(times.streams_go));
  const bool streams_taken = take_streams(running);
  running = wait_for_ends(std::move(running), wait.until(times.sigterm));
  const bool by_themselves = running.empty() && !streams_taken;
  send_sigterm(running);
  running = wait_for_ends(std::move(running), wait.until(times.sigkill));
  kill(running);
  running = wait_for_ends(std::move(running), wait.until(times.give_up));
  for (const auto& gateway : gateways) {
    gateway->finish_terminated();
  }
  base::Wait callbacks_run = wait.until(times.callbacks_end);
  callbacks_run.interrupted = nullptr;
  for (const auto& gateway : gateways) {
    Dispatcher& dispatcher = gateway->connection()->dispatcher();
    if (wait.hub == nullptr) {
      dispatcher.run_rest();
    }
    dispatcher.join(callbacks_run);
  }
  return {.unseen = std::move(running), .by_themselves = by_themselves};
}

}  // namespace execnet::core
