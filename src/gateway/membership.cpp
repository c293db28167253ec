#include "gateway/membership.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <exception>
#include <execnet/error.hpp>
#include <functional>
#include <iterator>
#include <system_error>
#include <utility>

#include "base/descriptor_limit.hpp"
#include "base/fd.hpp"
#include "gateway/ending.hpp"
#include "gateway/starting.hpp"

namespace execnet::core {
namespace {

// For a group that is terminated without a time-out: nothing is waited for without end.
constexpr base::Seconds kPatience{10.0};
constexpr base::Seconds kOnDestruction{1.0};
constexpr std::size_t kDescriptors = 3;     // of one gateway, at most
constexpr std::size_t kForOneStart = 20;    // besides, while it starts, here and in the child that becomes its guard
constexpr std::size_t kExpectedOfEach = 6;  // when all of a group start at once

using Gateways = std::vector<std::shared_ptr<GatewayEnd>>;

// The id of the gateway that is to be there first: the proxy, or who is to listen.
std::optional<std::string> leader(const XSpec& spec) { return spec.get(spec.has("via") ? "via" : "installvia"); }

// As in a specification, in any locale.
std::string to_text(base::Seconds seconds) {
  std::array<char, 64> text;
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), seconds.count()).ptr};
}

// Whether a function of the program takes what its worker prints.
void set_output(XSpec& spec, bool is_taken) {
  if (is_taken) {
    spec.set("stdout", transport::kCallback);
  } else if (spec.get("stdout") == transport::kCallback) {
    throw SpecError("stdout=callback in specification \"" + transport::without_secrets(spec.text()) +
                    "\", and no function: in Python set it as spec.stdout, in C++ give it to makegateway()");
  }
}

bool can_share_carrier(const XSpec& a, const XSpec& b) {
  return a.get("ssh") == b.get("ssh") && a.get("ssh_config") == b.get("ssh_config") &&
         a.get("python") == b.get("python") && a.grace() == b.grace() && a.keeps_detached() == b.keeps_detached();
}

// The same error with what to do about it, for want of descriptors; else as it is.
std::exception_ptr with_advice(const std::exception_ptr& failure, std::size_t gateways) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::system_error& error) {
    rlimit limit{};
    if (error.code() != std::errc::too_many_files_open || ::getrlimit(RLIMIT_NOFILE, &limit) != 0) {
      return failure;
    }
    return std::make_exception_ptr(std::system_error(
        error.code(), "the group has " + std::to_string(gateways) + " gateways, and each takes three descriptors (" +
                          std::to_string(kForOneStart) + " more while it starts); this program may have " +
                          std::to_string(limit.rlim_cur) +
                          " in all: raise that limit, ulimit -n or RLIMIT_NOFILE, the hard one, too"));
  } catch (...) {
    return failure;
  }
}

void remove(Gateways& gateways, const Gateways& gone) {
  std::erase_if(gateways, [&](const auto& one) { return std::find(gone.begin(), gone.end(), one) != gone.end(); });
}

}  // namespace

Membership::~Membership() {
  if (made_here_.in_forked_copy()) {
    return;
  }
  if (!ended_) {
    end();
  }
  if (loop_) {
    loop_->stop();
  }
}

void Membership::end() noexcept {
  ended_ = true;
  try {
    terminate(kOnDestruction, {});
  } catch (const std::exception&) {
    // Nobody is left to be told. The streams close now, and workers end when theirs does.
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
std::pair<std::vector<XSpec>, std::size_t> Membership::reserve(std::vector<XSpec> specs) {
  if (made_here_.in_forked_copy()) {
    throw ForkedResourceError("the group belongs to the process that this one was forked from: make one here");
  }
  for (XSpec& spec : specs) {
    spec.validate();
    allocate_id(spec);
  }
  const std::lock_guard lock(mutex_);
  for (XSpec& spec : specs) {
    if (!spec.has("grace")) {
      spec.set("grace", to_text(grace_));
    }
  }
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
      throw SpecError("the group has no gateway '" + *other + "' that '" + transport::without_secrets(spec.text()) +
                      "' could go through: make that one first");
    }
  }
  starting_.merge(ids);
  return {std::move(specs), terminations_};
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

std::shared_ptr<const TraceOutput> Membership::trace() {
  const std::lock_guard lock(mutex_);
  if (!trace_) {
    trace_ = TraceOutput::open(trace_wanted());
  }
  return *trace_;
}

std::shared_ptr<GatewayEnd> Membership::carrier(const XSpec& spec, bool may_ask, ForkServers::Batch& forks,
                                                const base::Wait& wait) {
  auto wanted = transport::carrier_of(spec);
  if (!wanted) {
    return nullptr;
  }
  const auto own_loop = loop();
  const std::lock_guard only_one(carrier_mutex_);
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(carriers_.begin(), carriers_.end(),
                                    [&](const auto& carrier) { return can_share_carrier(carrier->spec(), *wanted); });
    if (found != carriers_.end()) {
      if ((*found)->hasreceiver()) {
        return *found;
      }
      leaving_.push_back(std::move(*found));
      carriers_.erase(found);
    }
  }
  wanted->set("id", spec.get("id").value() + "-carrier");  // for messages
  auto carrier = GatewayEnd::start(*wanted, {}, may_ask, python_, nullptr, own_loop, forks, trace(), wait);
  const std::lock_guard lock(mutex_);
  carriers_.push_back(carrier);
  return carrier;
}

Gateways Membership::start(std::vector<XSpec> requested, const base::Wait& wait,
                           const std::vector<std::vector<std::string>>& commands, const std::vector<bool>& outputs) {
  for (std::size_t i = 0; i < requested.size(); ++i) {
    set_output(requested[i], i < outputs.size() && outputs[i]);
    if (i < commands.size() && !commands[i].empty() && requested[i].needs_socket()) {
      throw SpecError("\"" + transport::without_secrets(requested[i].text()) +
                      "\" wants its stream on a socket, and a command line that a program has made takes it from "
                      "standard input: leave out transport=socket and stdin=inherit");
    }
  }
  const auto [specs, terminations] = reserve(std::move(requested));
  const auto all_specs = std::cref(specs);  // a structured binding cannot be captured
  std::exception_ptr failure;
  Gateways others;  // each one's proxy, or the like
  ForkServers::Batch* batch = nullptr;
  const auto launch = [&](std::size_t index, bool may_ask) {
    return GatewayEnd::start(all_specs.get()[index],
                             index < commands.size() ? commands[index] : std::vector<std::string>(), may_ask, python_,
                             others[index], loop(), *batch, trace(), wait);
  };
  const auto announce = [&, terminations = terminations](const std::shared_ptr<GatewayEnd>& gateway) {
    const std::lock_guard lock(mutex_);
    coming_.push_back(gateway);
    if (terminations_ != terminations) {  // which has not seen this one
      throw HostNotFound("no usable Python for '" + transport::without_secrets(gateway->spec().text()) +
                         "': its group was terminated meanwhile");
    }
  };
  const bool may_ask = may_ask_at_once(specs);
  Starting starting(specs, may_ask, launch, announce, wait);
  try {
    base::make_room_for_descriptors(specs.size() * kDescriptors + outputs.size() + kForOneStart);
    base::expect_descriptors(specs.size() *
                             kExpectedOfEach);  // before the loop's thread is there, if these are the first
    const auto servers = fork_servers();
    ForkServers::Batch forks(*servers);
    batch = &forks;
    for (const XSpec& spec : specs) {  // all carriers start at once
      carrier(spec, may_ask, forks, wait);
    }
    for (const XSpec& spec : specs) {
      std::shared_ptr<GatewayEnd> other;
      const Gateways& started = starting.gateways();
      if (transport::carrier_of(spec)) {
        other = start_one([&](bool now) { return carrier(spec, now, forks, wait); }, may_ask, wait);
      } else if (const auto id = leader(spec)) {
        const auto new_one =
            std::find_if(started.begin(), started.end(), [&](const auto& gateway) { return gateway->id() == *id; });
        if (new_one != started.end() && static_cast<std::size_t>(new_one - started.begin()) >= starting.served()) {
          starting.wait_for_all();
        }
        other = new_one != started.end() ? started[static_cast<std::size_t>(new_one - started.begin())] : member(*id);
      }
      others.push_back(std::move(other));
      starting.launch_next();
    }
    starting.wait_for_all();
  } catch (...) {
    failure = std::current_exception();
  }
  Gateways started = starting.take_gateways();
  Gateways killed;
  if (failure) {  // no longer while the exception is handled: a greenlet must not wait there
    try {
      killed =
          end_in_order(started, {.deadline = base::Clock::now(), .hub = wait.hub, .greenlet = wait.greenlet}).unseen;
    } catch (const std::exception&) {
      // There is no memory, or nothing to wait by. They are dropped, and what drops a process ends and collects it.
    }
  }
  {
    const std::lock_guard lock(mutex_);
    for (const XSpec& spec : specs) {
      starting_.erase(spec.get("id").value());
    }
    remove(coming_, started);
    if (failure) {
      leaving_.insert(leaving_.end(), killed.begin(), killed.end());
    } else {
      members_.insert(members_.end(), started.begin(), started.end());
    }
  }
  if (failure) {
    started.clear();
    clean_up({.deadline = base::Clock::now(), .hub = wait.hub, .greenlet = wait.greenlet});
    std::rethrow_exception(with_advice(failure, members().size()));
  }
  return started;
}

void Membership::exit(GatewayEnd& gateway) {
  Gateways over;  // who only ever exits its gateways does not collect them; goes without the lock
  {
    const std::lock_guard lock(mutex_);
    over = take_leaving([](const GatewayEnd& end) {
      Connection& connection = *end.connection();
      return end.far_end().ended() && connection.dispatcher().is_over(connection.lock());
    });
    const auto found =
        std::find_if(members_.begin(), members_.end(), [&](const auto& member) { return member.get() == &gateway; });
    if (found != members_.end()) {
      leaving_.push_back(std::move(*found));
      members_.erase(found);
    }
  }
  gateway.exit();
}

bool Membership::terminate(std::optional<base::Seconds> timeout, const base::Wait& wait) {
  if (made_here_.in_forked_copy()) {
    return true;
  }
  const base::Deadline deadline = base::deadline_after(timeout.value_or(kPatience));
  Gateways ending = members();
  {
    const std::lock_guard lock(mutex_);
    ++terminations_;
    ending.insert(ending.end(), leaving_.begin(), leaving_.end());
    ending.insert(ending.end(), carriers_.begin(), carriers_.end());
    ending.insert(ending.end(), coming_.begin(), coming_.end());  // who starts them learns it by their end
  }
  // They stay members until they are gone: who interrupts this can terminate again.
  const auto [killed, by_themselves] = end_in_order(ending, wait.until(deadline));
  {
    const std::lock_guard lock(mutex_);
    remove(members_, ending);
    remove(leaving_, ending);
    remove(carriers_, ending);
    leaving_.insert(leaving_.end(), killed.begin(), killed.end());
  }
  clean_up(wait.until(deadline));
  return by_themselves;
}

void Membership::tell_to_exit() {
  if (!made_here_.in_forked_copy()) {
    core::tell_to_exit(members());
  }
}

// The carriers, which are fork servers' parents elsewhere, and the fork servers first: what is left of their workers
// ends with them, and the loop sees that. Of several threads that come here the one that ends them stops the loop.
void Membership::clean_up(const base::Wait& wait) {
  for (;;) {
    std::shared_ptr<ForkServers> servers;
    std::shared_ptr<loop::Loop> idle;
    Gateways carriers;
    Gateways ended;  // goes without the lock
    {
      const std::lock_guard lock(mutex_);
      ended = take_leaving([](const GatewayEnd& end) { return end.far_end().ended().has_value(); });
      const bool awaited = std::all_of(leaving_.begin(), leaving_.end(),
                                       [](const auto& gateway) { return gateway->far_end().killed_here(); });
      if (members_.empty() && starting_.empty() && awaited) {
        servers = std::move(fork_servers_);
        carriers = std::exchange(carriers_, {});
        if (servers) {
          ending_servers_ = servers;
        } else if (carriers.empty() && leaving_.empty() && ending_servers_.expired()) {
          idle = std::move(loop_);
        }
      }
    }
    if (idle) {
      idle->stop();
    }
    if (!servers && carriers.empty()) {
      return;
    }
    const Gateways killed = end_in_order(carriers, wait).unseen;
    if (servers) {
      servers->end(wait);
    }
    const std::lock_guard lock(mutex_);
    leaving_.insert(leaving_.end(), killed.begin(), killed.end());
  }
}

// REQUIRES the mutex.
Gateways Membership::take_leaving(const std::function<bool(const GatewayEnd&)>& which) {
  const auto first =
      std::partition(leaving_.begin(), leaving_.end(), [&](const auto& gateway) { return !which(*gateway); });
  Gateways taken(std::make_move_iterator(first), std::make_move_iterator(leaving_.end()));
  leaving_.erase(first, leaving_.end());
  return taken;
}

// Throws SpecError when it has left meanwhile.
std::shared_ptr<GatewayEnd> Membership::member(const std::string& id) const {
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
  return transport::bootstrap_args(spec, python_);
}

base::Seconds Membership::grace() const {
  const std::lock_guard lock(mutex_);
  return grace_;
}

void Membership::set_grace(base::Seconds grace) {
  if (!(grace >= base::Seconds(0) && grace <= XSpec::kMostSeconds)) {
    throw SpecError("the grace of a group is a number of seconds from 0 to " +
                    std::to_string(XSpec::kMostSeconds.count()) + ", not " + to_text(grace));
  }
  const std::lock_guard lock(mutex_);
  grace_ = grace;
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
