#include "gateway/starting.hpp"

#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <execnet/error.hpp>
#include <iterator>
#include <optional>
#include <random>
#include <span>
#include <utility>

#include "base/event.hpp"
#include "base/fd.hpp"

namespace execnet::core {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLookAfterAll{200};  // for one that has failed
constexpr milliseconds kLookForRoom{20};    // a start over ssh takes ten times that
constexpr int kMostAttempts = 12;
constexpr milliseconds kFirstPause{100};
constexpr milliseconds kLongestPause{2000};

bool is_over_ssh(const XSpec& spec) { return spec.has("ssh") || spec.has("vagrant_ssh"); }

bool have_same_target(const XSpec& a, const XSpec& b) {
  return a.get("ssh") == b.get("ssh") && a.get("vagrant_ssh") == b.get("vagrant_ssh") &&
         a.get("ssh_config") == b.get("ssh_config") && a.get("via") == b.get("via");
}

bool has_terminal() { return static_cast<bool>(base::Fd(::open("/dev/tty", O_RDWR | O_NOCTTY | O_CLOEXEC))); }

// After the attempt of that number. Not the same for all, who would come at the same moment again.
milliseconds pause_after(int number) {
  static thread_local std::minstd_rand random{std::random_device{}()};
  const milliseconds longest = std::min(kLongestPause, kFirstPause * (1 << std::min(number, 6)));
  return milliseconds(std::uniform_int_distribution<int>(static_cast<int>(kFirstPause.count()),
                                                         static_cast<int>(longest.count()))(random));
}

void rest(const base::Wait& wait) {
  const base::Event never;
  pollfd entry{never.fd(), POLLIN, 0};
  base::poll_until(std::span(&entry, 1), wait);
}

// Why it does not serve, after all that it may take; none if it does. Its process is gone otherwise.
std::optional<HostNotFound> why_not(GatewayEnd& gateway, const base::Wait& wait) {
  try {
    gateway.wait_started(wait);
  } catch (const HostNotFound& error) {
    return error;  // a greenlet must not wait in here
  }
  return std::nullopt;
}

}  // namespace

Starting::Starting(const std::vector<XSpec>& specs, bool may_ask, Launch launch, Announce announce,
                   const base::Wait& wait)
    : specs_(specs),
      launch_(std::move(launch)),
      announce_(std::move(announce)),
      wait_(wait),
      ask_at_once_(may_ask),
      progress_(base::Clock::now()) {
  gateways_.reserve(specs.size());
}

void Starting::launch_next() {
  const std::size_t index = gateways_.size();
  const XSpec& spec = specs_[index];
  while (is_over_ssh(spec) && coming_to(spec) >= kAtOnce) {
    look();
    rest(wait_.until(base::Clock::now() + kLookForRoom));
  }
  attempts_.push_back({.since = base::Clock::now(), .may_ask = ask_at_once_ || !is_over_ssh(spec)});
  gateways_.push_back(launch_(index, attempts_.back().may_ask));
  announce_(gateways_.back());
}

std::size_t Starting::coming_to(const XSpec& spec) const {
  std::size_t coming = 0;
  for (std::size_t i = served_; i < gateways_.size(); ++i) {
    if (have_same_target(specs_[i], spec) && gateways_[i]->start_until({}) == GatewayEnd::Start::kComing) {
      ++coming;
    }
  }
  return coming;
}

// Sleeps for the last that is still to come, when mostly all are there, so that nobody is woken for each.
void Starting::wait_for_all() {
  progress_ = base::Clock::now();
  while (served_ < gateways_.size()) {
    const auto first = gateways_.begin() + static_cast<std::ptrdiff_t>(served_);
    const auto last = std::find_if(gateways_.rbegin(), std::make_reverse_iterator(first), [](const auto& gateway) {
      return gateway->start_until({}) == GatewayEnd::Start::kComing;
    });
    if (last != std::make_reverse_iterator(first)) {
      static_cast<void>((*last)->start_until(wait_.until(base::Clock::now() + kLookAfterAll)));
    }
    look();
  }
}

void Starting::look() {
  for (std::size_t i = served_; i < gateways_.size(); ++i) {
    if (gateways_[i]->start_until({}) == GatewayEnd::Start::kFailed) {
      on_failure(i);
    }
  }
  while (served_ < gateways_.size() && gateways_[served_]->start_until({}) == GatewayEnd::Start::kServes) {
    gateways_[served_]->wait_started(wait_);
    ++served_;
    progress_ = base::Clock::now();
  }
  for (std::size_t i = served_; i < gateways_.size(); ++i) {
    check_time(i);
  }
}

// Without a time of its own one may take longer as long as others come.
void Starting::check_time(std::size_t index) {
  GatewayEnd& gateway = *gateways_[index];
  const bool own = specs_[index].has("connect_timeout");
  const auto since = own ? attempts_[index].since : std::max(progress_, attempts_[index].since);
  if (base::Clock::now() - since > gateway.starts_within() && gateway.start_until({}) == GatewayEnd::Start::kComing) {
    if (const auto& refusal = attempts_[index].refusal) {
      throw HostNotFound(*refusal);
    }
    gateway.wait_started(wait_, milliseconds(0));  // throws
  }
}

void Starting::on_failure(std::size_t index) {
  Attempt& attempt = attempts_[index];
  const bool asked = attempt.may_ask;
  if (auto failure = why_not(*gateways_[index], wait_)) {
    attempt.wait_to_repeat(*gateways_[index], std::move(*failure), wait_);
  }
  gateways_[index] = launch_(index, attempt.may_ask);
  announce_(gateways_[index]);
  if (!asked && attempt.may_ask) {  // nobody else asks meanwhile
    static_cast<void>(
        gateways_[index]->start_until(wait_.until(base::Clock::now() + gateways_[index]->starts_within())));
  }
}

void Attempt::wait_to_repeat(const GatewayEnd& failed, HostNotFound failure, const base::Wait& wait) {
  if (failed.was_refused_for_now() && number < kMostAttempts && base::Clock::now() - since < failed.starts_within()) {
    rest(wait.until(base::Clock::now() + pause_after(number)));
    ++number;
    refusal = std::move(failure);
  } else if (!may_ask && failed.wanted_answers()) {
    may_ask = true;
    since = base::Clock::now();
  } else {
    throw HostNotFound(failure);
  }
}

bool may_ask_at_once(const std::vector<XSpec>& specs) {
  return std::count_if(specs.begin(), specs.end(), is_over_ssh) <= 1 || !has_terminal();
}

std::shared_ptr<GatewayEnd> start_one(const std::function<std::shared_ptr<GatewayEnd>(bool may_ask)>& launch,
                                      bool may_ask, const base::Wait& wait) {
  for (Attempt attempt{.since = base::Clock::now(), .may_ask = may_ask};;) {
    std::shared_ptr<GatewayEnd> gateway = launch(attempt.may_ask);
    auto failure = why_not(*gateway, wait);
    if (!failure) {
      return gateway;
    }
    attempt.wait_to_repeat(*gateway, std::move(*failure), wait);
  }
}

}  // namespace execnet::core
