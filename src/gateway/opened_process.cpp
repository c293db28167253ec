#include "gateway/opened_process.hpp"

#include <chrono>
#include <execnet/error.hpp>
#include <map>
#include <utility>

#include "base/syscall.hpp"
#include "connection/value_message.hpp"
#include "process/tree.hpp"
#include "wire/frame.hpp"

namespace execnet::core {
namespace {

// For a process that has ended its stream itself.
constexpr std::chrono::milliseconds kFinishesWithin{2000};
// Of the sources for a fork server, which a socket takes at once.
constexpr std::size_t kMostSources = std::size_t{128} * 1024;

transport::Launch launch_of(const base::Buffer& payload) {
  const Tuple request = decode_value(payload.view()).as<Tuple>();
  if (request.size() != 7) {
    throw wire::ProtocolError("OPEN without (argv, env, stream on stdio, beside, sources, grace, keeps detached)");
  }
  transport::Launch launch;
  for (const Value& word : request[0].as<std::vector<Value>>()) {
    launch.argv.emplace_back(word.as<Bytes>().view());
  }
  for (const auto& [name, value] : request[1].as<Dict>()) {
    launch.env.emplace_back(name.as<Bytes>().view(), value.as<Bytes>().view());
  }
  launch.stream_on_stdio = request[2].as<bool>();
  launch.beside = request[3].as<bool>();
  if (!launch.stream_on_stdio && !launch.beside) {
    throw wire::ProtocolError("OPEN without a stream");
  }
  launch.native = true;  // what comes before the first frame comes from the coordinator
  if (!request[4].is_none()) {
    launch.forks = true;
    launch.sources = request[4].as<Bytes>().view();
    if (launch.sources.empty() || launch.sources.size() > kMostSources) {
      throw wire::ProtocolError("OPEN with sources of " + std::to_string(launch.sources.size()) + " bytes");
    }
  }
  if (launch.argv.empty()) {
    throw wire::ProtocolError("OPEN without a program");
  }
  launch.leniency = {.grace = std::chrono::milliseconds(request[5].as<std::int64_t>()),
                     .keeps_detached = request[6].as<bool>()};
  if (launch.leniency.grace < std::chrono::milliseconds(0) || launch.leniency.grace > XSpec::kMostSeconds) {
    throw wire::ProtocolError("OPEN with a grace of " + std::to_string(launch.leniency.grace.count()) + " ms");
  }
  return launch;
}

}  // namespace

std::shared_ptr<OpenedProcess> OpenedProcess::open(Connection::Lock& lock, std::shared_ptr<Connection> connection,
                                                   std::shared_ptr<ChannelState> channel, const base::Buffer& payload,
                                                   std::shared_ptr<ForkServers> forks) {
  auto self =
      std::make_shared<OpenedProcess>(std::move(connection), std::move(channel), launch_of(payload), std::move(forks));
  self->relay_ = std::make_shared<Relay>(self->connection_, self->channel_, self);
  self->later(std::chrono::milliseconds(0), &OpenedProcess::start);  // it waits for the lock
  self->relay_->take_channel(lock);
  return self;
}

OpenedProcess::OpenedProcess(std::shared_ptr<Connection> connection, std::shared_ptr<ChannelState> channel,
                             transport::Launch launch, std::shared_ptr<ForkServers> forks)
    : connection_(std::move(connection)),
      channel_(std::move(channel)),
      launch_(std::move(launch)),
      forks_(std::move(forks)) {}

OpenedProcess::~OpenedProcess() { connection_->loop()->unwatch(end_watch_); }

void OpenedProcess::later(std::chrono::milliseconds delay, void (OpenedProcess::*what)()) {
  connection_->loop()->call_after(delay, [weak = weak_from_this(), what] {
    if (const auto self = weak.lock()) {
      self->guarded(what);
    }
  });
}

// What goes wrong on the loop ends the process, and the coordinator is told.
void OpenedProcess::guarded(void (OpenedProcess::*what)()) {
  try {
    (this->*what)();
  } catch (const std::exception& error) {
    connection_->loop()->unwatch(end_watch_);
    close(std::string("its proxy has failed: ") + error.what());
    kill();
  }
}

void OpenedProcess::start() {
  {
    auto lock = connection_->lock();
    if (relay_->channel_ended(lock)) {
      lock.unlock();
      close("");
      return;
    }
  }
  try {
    base::Fd stream;
    if (launch_.forks) {
      auto [ours, theirs] = base::socket_pair();
      stream = std::move(ours);
      far_end_ = ForkServers::Batch(*forks_).fork(launch_, std::move(theirs));
    } else {
      transport::Link link = transport::open(launch_);
      stream = std::move(link.stream);
      far_end_ =
          std::make_shared<LocalProcess>(std::move(link.process), std::move(link.stderr_pipe), connection_->loop());
    }
    end_watch_ = far_end_->watch_end(*connection_->loop(), [weak = weak_from_this()] {
      if (const auto self = weak.lock()) {
        self->guarded(&OpenedProcess::look);
      }
    });
    {
      auto lock = connection_->lock();
      relay_->take_stream(lock, std::move(stream));
    }
    look();
  } catch (const HostNotFound& error) {
    close(error.what());
  } catch (const std::exception& error) {
    close("cannot start '" + launch_.argv[0] + "': " + error.what());
  }
}

void OpenedProcess::on_relay_change(Connection::Lock& lock) {
  static_cast<void>(lock);
  later(std::chrono::milliseconds(0), &OpenedProcess::look);
}

// Finds out what is to be done next.
void OpenedProcess::look() {
  if (!far_end_) {
    return;
  }
  const auto how = far_end_->ended();
  auto lock = connection_->lock();
  const bool spoken = relay_->has_spoken(lock);
  const bool stream_ended = relay_->stream_ended(lock);
  const bool channel_ended = relay_->channel_ended(lock);
  if (how) {
    connection_->loop()->unwatch(end_watch_);
    relay_->shut_down(lock);  // a grandchild may hold it open; what was said is still relayed
  }
  lock.unlock();
  if (spoken && !std::exchange(serves_, true)) {
    far_end_->on_serving(std::nullopt);
  }
  if (how && stream_ended) {
    const std::string said = far_end_->said();
    close(*how + (said.empty() ? "" : "\n" + said));
  } else if (!how && (channel_ended || stream_ended) && !std::exchange(ending_, true)) {
    // What could still be written is, while the process looks for its end.
    // Without a coordinator its code is interrupted, and has its time after that.
    later(connection_->gone(lock) ? kLostMoment + launch_.leniency.grace
          : channel_ended         ? kEndsWithin
                                  : kFinishesWithin,
          &OpenedProcess::kill);
  }
}

void OpenedProcess::kill() {
  if (far_end_->ended()) {
    return;
  }
  far_end_->on_kill();
  if (process::Process* process = far_end_->process()) {
    process->kill_tree();
  }
}

void OpenedProcess::close(const std::string& error) {
  {
    auto lock = connection_->lock();
    connection_->close_channel(lock, channel_, error.empty() ? std::nullopt : std::optional(error));
  }
  if (const auto over = std::exchange(over_, nullptr)) {
    over();
  }
}

void OpenedProcess::end_all(const std::vector<std::shared_ptr<OpenedProcess>>& opened,
                            std::chrono::milliseconds within) {
  std::vector<process::Process*> running;
  for (const auto& one : opened) {
    if (!one->far_end_ || one->far_end_->ended()) {
      continue;
    }
    if (process::Process* process = one->far_end_->process()) {
      auto lock = one->connection_->lock();
      one->relay_->shut_down(lock);
      running.push_back(process);
    }
  }
  const base::Deadline deadline = base::Clock::now() + within;
  std::erase_if(running, [&](process::Process* process) { return process->wait({.deadline = deadline}).has_value(); });
  if (!running.empty()) {
    process::kill_trees(running);
  }
}

}  // namespace execnet::core
