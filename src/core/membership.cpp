#include "core/membership.hpp"

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <exception>
#include <execnet/error.hpp>
#include <utility>

#include "process/tree.hpp"

namespace execnet::core {
namespace {

// For a group that is terminated without a time-out: nothing is waited for without end.
constexpr base::Seconds kPatience{10.0};
constexpr base::Seconds kOnDestruction{1.0};
constexpr std::chrono::milliseconds kAfterSigterm{100};
// After SIGKILL only the kernel's own work is left.
constexpr std::chrono::seconds kAfterSigkill{2};
// For a proxy to kill what has had its stream shut down. One that does not is to die itself, with all it has started.
constexpr std::chrono::milliseconds kAfterCut{600};
// For callbacks to be told the end; one that blocks for ever is left behind.
constexpr std::chrono::milliseconds kCallbacksEndWithin{200};

using Gateways = std::vector<std::shared_ptr<Gateway>>;

// The id of the gateway that is to be there first: the proxy, or who is to listen.
std::optional<std::string> leader(const XSpec& spec) { return spec.get(spec.has("via") ? "via" : "installvia"); }

// Waits for the ends of the processes; those that are still there when the deadline has passed.
Gateways wait_for_ends(Gateways running, const base::Wait& wait) {
  for (;;) {
    std::erase_if(running, [](const auto& gateway) { return gateway->end()->far_end().ended().has_value(); });
    if (running.empty()) {
      return running;
    }
    std::vector<pollfd> ends;
    ends.reserve(running.size());
    for (const auto& gateway : running) {
      ends.push_back({gateway->end()->far_end().end_fd(), POLLIN, 0});
    }
    if (!base::poll_until(ends, wait)) {
      return running;
    }
  }
}

}  // namespace

void end_processes(const Gateways& gateways, const base::Wait& wait) {
  Gateways running = wait_for_ends(gateways, wait);
  if (!running.empty()) {
    for (const auto& gateway : running) {
      gateway->end()->ask_to_end();
    }
    running = wait_for_ends(std::move(running), wait.until(base::Clock::now() + kAfterSigterm));
  }
  if (!running.empty()) {
    std::vector<process::Process*> roots;
    roots.reserve(running.size());
    for (const auto& gateway : running) {
      if (process::Process* process = gateway->end()->far_end().process()) {
        roots.push_back(process);
      }
    }
    if (!roots.empty()) {
      process::kill_trees(roots);
    }
    const auto patience = roots.empty() ? kAfterCut : std::chrono::milliseconds(kAfterSigkill);
    running = wait_for_ends(std::move(running), wait.until(base::Clock::now() + patience));
  }
  for (const auto& gateway : gateways) {
    gateway->end()->finish_terminated();
  }
  base::Wait callbacks_run = wait.until(base::Clock::now() + kCallbacksEndWithin);
  callbacks_run.interrupted = nullptr;
  for (const auto& gateway : gateways) {
    Dispatcher& dispatcher = gateway->end()->connection()->dispatcher();
    if (wait.hub == nullptr) {
      dispatcher.run_rest();
    }
    dispatcher.join(callbacks_run);
  }
}

// Proxies after what hangs on them: a wave are those that nothing left hangs on. When the time is up it is all that go
// through a proxy, at once, for a chain must not take longer the longer it is: a proxy that loses its stream ends what
// goes through it.
void end_in_order(Gateways gateways, const base::Wait& wait) {
  while (!gateways.empty()) {
    const bool late = base::has_passed(wait.deadline);
    std::set<std::shared_ptr<GatewayEnd>> needed;
    for (const auto& gateway : gateways) {
      needed.insert(gateway->end()->leader());
    }
    const auto last = std::stable_partition(gateways.begin(), gateways.end(), [&](const auto& gateway) {
      const bool goes_through = gateway->spec().has("via");
      return needed.contains(gateway->end()) && !(late && goes_through);
    });
    const Gateways wave(last, gateways.end());
    gateways.erase(last, gateways.end());
    for (const auto& gateway : wave) {
      gateway->end()->exit();
    }
    end_processes(wave, wait);
  }
}

Membership::~Membership() {
  if (made_here_.in_forked_copy()) {
    return;
  }
  try {
    terminate(kOnDestruction, {});
  } catch (const std::exception&) {
    // Nobody is left to be told. The streams close now, and workers end when theirs does.
  }
  if (loop_) {
    loop_->stop();
  }
}

bool Membership::is_taken(const std::string& id) const {
  return starting_.contains(id) ||
         std::any_of(members_.begin(), members_.end(), [&](const auto& gateway) { return gateway->id() == id; });
}

void Membership::allocate_id(XSpec& spec) {
  const std::lock_guard lock(mutex_);
  if (spec.get("id")) {
    return;
  }
  std::string id;
  do {
    id = "gw" + std::to_string(next_auto_id_++);
  } while (is_taken(id));
  spec.set("id", id);
}

// Checks everything that can be wrong, for all of them, before the first is started.
std::vector<XSpec> Membership::reserve(std::vector<XSpec> specs) {
  if (made_here_.in_forked_copy()) {
    throw SpecError("the group belongs to the process that this one was forked from: make one here");
  }
  for (XSpec& spec : specs) {
    spec.validate();
    allocate_id(spec);
  }
  const std::lock_guard lock(mutex_);
  std::set<std::string> ids;
  const auto is_member = [&](const std::string& id) {
    return std::any_of(members_.begin(), members_.end(), [&](const auto& gateway) { return gateway->id() == id; });
  };
  for (const XSpec& spec : specs) {
    const std::string id = spec.get("id").value();
    if (is_taken(id) || !ids.insert(id).second) {
      throw SpecError("the group already has a gateway with id '" + id + "': ids are unique in a group");
    }
    if (const auto other = leader(spec); other && !is_member(*other) && (*other == id || !ids.contains(*other))) {
      throw SpecError("the group has no gateway '" + *other + "' that '" + spec.text() +
                      "' could go through: make that one first");
    }
  }
  starting_.merge(ids);
  return specs;
}

std::shared_ptr<loop::Loop> Membership::loop() {
  const std::lock_guard lock(mutex_);
  if (!loop_) {
    loop_ = std::make_shared<loop::Loop>();
  }
  return loop_;
}

std::shared_ptr<ForkServers> Membership::fork_servers() {
  const auto own_loop = loop();
  const std::lock_guard lock(mutex_);
  if (!fork_servers_) {
    fork_servers_ = std::make_shared<ForkServers>(own_loop);
  }
  return fork_servers_;
}

Gateways Membership::start(std::vector<XSpec> requested, const base::Wait& wait) {
  const std::vector<XSpec> specs = reserve(std::move(requested));
  Gateways started;
  started.reserve(specs.size());
  std::exception_ptr failure;
  try {
    std::size_t served = 0;  // of `started`, those that have been waited for
    const auto wait_for_all = [&] {
      for (; served < started.size(); ++served) {
        started[served]->end()->wait_started(wait);
      }
    };
    for (const XSpec& spec : specs) {
      std::shared_ptr<Gateway> other;
      if (const auto id = leader(spec)) {
        const auto new_one =
            std::find_if(started.begin(), started.end(), [&](const auto& gateway) { return gateway->id() == *id; });
        if (new_one != started.end() && static_cast<std::size_t>(new_one - started.begin()) >= served) {
          wait_for_all();
        }
        other = new_one != started.end() ? *new_one : member(*id);
      }
      started.push_back(std::make_shared<Gateway>(
          GatewayEnd::start(spec, python_, other ? other->end() : nullptr, loop(), *fork_servers(), wait)));
    }
    wait_for_all();
  } catch (...) {
    failure = std::current_exception();
  }
  if (failure) {  // no longer while the exception is handled: a greenlet must not wait there
    end_in_order(started, {.deadline = base::Clock::now(), .hub = wait.hub, .greenlet = wait.greenlet});
  }
  {
    const std::lock_guard lock(mutex_);
    for (const XSpec& spec : specs) {
      starting_.erase(spec.get("id").value());
    }
    if (!failure) {
      members_.insert(members_.end(), started.begin(), started.end());
    }
  }
  if (failure) {
    stop_if_idle({.deadline = base::Clock::now(), .hub = wait.hub, .greenlet = wait.greenlet});
    std::rethrow_exception(failure);
  }
  return started;
}

void Membership::exit(Gateway& gateway) {
  {
    const std::lock_guard lock(mutex_);
    const auto found =
        std::find_if(members_.begin(), members_.end(), [&](const auto& member) { return member.get() == &gateway; });
    if (found != members_.end()) {
      leaving_.push_back(std::move(*found));
      members_.erase(found);
    }
  }
  gateway.end()->exit();
}

void Membership::terminate(std::optional<base::Seconds> timeout, const base::Wait& wait) {
  if (made_here_.in_forked_copy()) {
    return;
  }
  const base::Deadline deadline = base::deadline_after(timeout.value_or(kPatience));
  Gateways ending = members();
  {
    const std::lock_guard lock(mutex_);
    ending.insert(ending.end(), leaving_.begin(), leaving_.end());
  }
  // They stay members until they are gone: who interrupts this can terminate again.
  end_in_order(ending, wait.until(deadline));
  {
    const std::lock_guard lock(mutex_);
    const auto ended = [&](const auto& gateway) {
      return std::find(ending.begin(), ending.end(), gateway) != ending.end();
    };
    std::erase_if(members_, ended);
    std::erase_if(leaving_, ended);
  }
  stop_if_idle(wait.until(deadline));
}

void Membership::stop_if_idle(const base::Wait& wait) {
  std::shared_ptr<loop::Loop> idle;
  std::shared_ptr<ForkServers> servers;
  {
    const std::lock_guard lock(mutex_);
    if (members_.empty() && leaving_.empty() && starting_.empty()) {
      idle = std::move(loop_);
      servers = std::move(fork_servers_);
    }
  }
  if (servers) {
    servers->end(wait);
  }
  if (idle) {
    idle->stop();
  }
}

// Throws SpecError when it has left meanwhile.
std::shared_ptr<Gateway> Membership::member(const std::string& id) const {
  for (const auto& gateway : members()) {
    if (gateway->id() == id) {
      return gateway;
    }
  }
  throw SpecError("gateway '" + id + "' has left the group");
}

Gateways Membership::members() const {
  const std::lock_guard lock(mutex_);
  return members_;
}

std::vector<std::string> Membership::launch_args(const XSpec& spec) const {
  return transport::launch_for(spec, python_).argv;
}

XSpec Membership::defaultspec() const {
  const std::lock_guard lock(mutex_);
  return defaultspec_;
}

void Membership::set_defaultspec(const XSpec& spec) {
  const std::lock_guard lock(mutex_);
  defaultspec_ = spec;
}

}  // namespace execnet::core
