#include "gateway/far_end.hpp"

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <system_error>
#include <utility>
#include <vector>

#include "connection/value_message.hpp"

namespace execnet::core {
namespace {

constexpr std::chrono::milliseconds kLook{10};  // after an end of which nothing tells

Value open_payload(const transport::Launch& launch) {
  List argv;
  for (const std::string& word : launch.argv) {
    argv.emplace_back(Bytes(word));
  }
  Dict env;
  for (const auto& [name, value] : launch.env) {
    env.emplace_back(Bytes(name), Bytes(value));
  }
  const base::Buffer sources = launch.forks ? transport::preamble(launch) : base::Buffer();
  return Tuple{std::move(argv),
               std::move(env),
               launch.stream_on_stdio,
               launch.beside,
               launch.forks ? Value(Bytes(std::string(sources.view()))) : Value(),
               static_cast<std::int64_t>(launch.leniency.grace.count()),
               launch.leniency.keeps_detached};
}

}  // namespace

loop::Loop::Id FarEnd::watch_end(loop::Loop& loop, std::function<void()> handler) {
  return loop.watch(end_fd(), loop::kRead, [handler = std::move(handler)](std::uint32_t) { handler(); });
}

bool wait_for_an_end(std::span<FarEnd* const> far_ends, loop::Loop& loop, const base::Wait& wait) {
  std::vector<pollfd> ends;
  ends.reserve(far_ends.size());
  base::Wait until = wait;
  const auto look_soon = [&] {
    until = wait.until(std::min(wait.deadline.value_or(base::Clock::time_point::max()), base::Clock::now() + kLook));
  };
  for (FarEnd* const far_end : far_ends) {
    try {
      ends.push_back({far_end->end_fd(), POLLIN, 0});
    } catch (const std::system_error&) {  // no descriptor is left to see its end by
      look_soon();
    }
  }
  bool ready = base::poll_until(ends, until);
  if (std::erase_if(ends, [](const pollfd& end) { return (end.revents & POLLNVAL) != 0; }) > 0) {
    loop.on_closed_descriptors();
    look_soon();
    ready = base::poll_until(ends, until);
  }
  return ready || until.deadline != wait.deadline;
}

// --- LocalProcess ---

LocalProcess::LocalProcess(std::shared_ptr<process::Process> process, base::Fd stderr_pipe,
                           std::shared_ptr<loop::Loop> loop)
    : process_(std::move(process)), oom_(process_->pid()) {
  if (stderr_pipe) {
    stderr_ = std::make_shared<StderrTail>(std::move(stderr_pipe), std::move(loop));
    stderr_->start();
  }
}

std::string LocalProcess::said() { return stderr_ ? stderr_->text() : ""; }

void LocalProcess::on_serving(std::optional<pid_t> worker) {
  if (stderr_) {
    stderr_->pass_on();
  }
  const std::lock_guard lock(mutex_);
  oom_.follow(worker.value_or(process_->pid()));
}

std::optional<std::string> LocalProcess::ended() {
  const auto status = process_->poll();
  if (!status) {
    return std::nullopt;
  }
  const std::lock_guard lock(mutex_);
  if (!how_) {
    how_ = killed_here() ? status->describe() : process::describe_end(*status, oom_);
  }
  return how_;
}

// --- ProxiedProcess ---

ProxiedProcess::ProxiedProcess(std::shared_ptr<Connection> proxy) : proxy_(std::move(proxy)) {}

std::shared_ptr<ProxiedProcess> ProxiedProcess::open(std::shared_ptr<Connection> proxy, const transport::Launch& launch,
                                                     base::Fd stream) {
  base::Buffer payload = encode_value(open_payload(launch));
  auto self = std::make_shared<ProxiedProcess>(std::move(proxy));
  Connection& connection = *self->proxy_;
  auto lock = connection.lock();
  if (connection.gone(lock)) {
    connection.throw_gone(lock);
  }
  self->channel_ = connection.new_state(lock);
  self->relay_ = std::make_shared<Relay>(self->proxy_, self->channel_, self);
  self->relay_->take_stream(lock, std::move(stream));
  self->relay_->take_channel(lock);
  connection.use_rings(lock);
  // Last: writing lets go of the mutex, and the proxy may answer at once.
  connection.post(lock, wire::FrameType::kOpen, self->channel_->id, std::move(payload));
  return self;
}

void ProxiedProcess::let_go() {
  if (proxy_->in_forked_copy()) {
    return;
  }
  auto lock = proxy_->lock();
  proxy_->close_channel(lock, channel_, std::nullopt);
}

std::optional<std::string> ProxiedProcess::ended() {
  const std::lock_guard lock(mutex_);
  return how_;
}

std::string ProxiedProcess::said() {
  const std::lock_guard lock(mutex_);
  return said_;
}

void ProxiedProcess::on_relay_change(Connection::Lock& lock) {
  if (relay_->flushed(lock)) {
    const std::lock_guard own_lock(mutex_);
    if (how_) {
      return;
    }
    const std::string text = relay_->error(lock);
    if (const auto& gone = proxy_->gone(lock)) {
      how_ = "its proxy is gone: " + *gone;
    } else if (text.empty()) {
      how_ = "its proxy has ended it";
    } else {
      const std::size_t line_end = std::min(text.find('\n'), text.size());
      how_ = text.substr(0, line_end);
      said_ = text.substr(std::min(line_end + 1, text.size()));
    }
    ended_event_.signal();
  } else if (relay_->stream_ended(lock) && !relay_->channel_ended(lock) && !std::exchange(last_sent_, true)) {
    proxy_->post(lock, wire::FrameType::kLast, channel_->id);
  }
}

// --- Stranger ---

std::optional<std::string> Stranger::ended() {
  return ended_event_.has_happened() ? std::optional<std::string>("it closed the connection") : std::nullopt;
}

}  // namespace execnet::core
