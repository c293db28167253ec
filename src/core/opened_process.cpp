#include "core/opened_process.hpp"

#include <chrono>
#include <map>
#include <system_error>
#include <utility>

#include "core/value_message.hpp"
#include "process/spawn.hpp"
#include "process/tree.hpp"
#include "wire/frame.hpp"

namespace execnet::core {
namespace {

// For a worker to end by itself, with its code interrupted, when the coordinator has ended its stream.
constexpr std::chrono::milliseconds kEndsWithin{300};
// For a process that has ended its stream itself.
constexpr std::chrono::milliseconds kFinishesWithin{2000};

transport::Launch launch_of(const base::Buffer& payload) {
  const Tuple request = decode_value(payload.view()).as<Tuple>();
  if (request.size() != 3) {
    throw wire::ProtocolError("OPEN without (argv, env, stream on stdio)");
  }
  transport::Launch launch;
  for (const Value& word : request[0].as<std::vector<Value>>()) {
    launch.argv.emplace_back(word.as<Bytes>().view());
  }
  for (const auto& [name, value] : request[1].as<Dict>()) {
    launch.env.emplace_back(name.as<Bytes>().view(), value.as<Bytes>().view());
  }
  launch.stream_on_stdio = request[2].as<bool>();
  launch.native = true;  // what comes before the first frame comes from the coordinator
  if (launch.argv.empty()) {
    throw wire::ProtocolError("OPEN without a program");
  }
  return launch;
}

}  // namespace

std::shared_ptr<OpenedProcess> OpenedProcess::open(Connection::Lock& lock, std::shared_ptr<Connection> connection,
                                                   std::shared_ptr<ChannelState> channel, const base::Buffer& payload) {
  auto self = std::make_shared<OpenedProcess>(std::move(connection), std::move(channel), launch_of(payload));
  self->relay_ = std::make_shared<Relay>(self->connection_, self->channel_, self);
  self->relay_->take_channel(lock);
  self->later(std::chrono::milliseconds(0), &OpenedProcess::start);
  return self;
}

OpenedProcess::OpenedProcess(std::shared_ptr<Connection> connection, std::shared_ptr<ChannelState> channel,
                             transport::Launch launch)
    : connection_(std::move(connection)), channel_(std::move(channel)), launch_(std::move(launch)) {}

OpenedProcess::~OpenedProcess() { connection_->loop()->unwatch(process_watch_); }

void OpenedProcess::later(std::chrono::milliseconds delay, void (OpenedProcess::*what)()) {
  connection_->loop()->call_after(delay, [weak = weak_from_this(), what] {
    if (const auto self = weak.lock()) {
      (*self.*what)();
    }
  });
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
    transport::Link link = transport::start(launch_);
    process_ = std::move(link.process);
    stderr_ = std::make_shared<StderrTail>(std::move(link.stderr_pipe), connection_->loop());
    stderr_->start();
    process_watch_ =
        connection_->loop()->watch(process_->pidfd(), loop::kRead, [weak = weak_from_this()](std::uint32_t) {
          if (const auto self = weak.lock()) {
            self->look();
          }
        });
    {
      auto lock = connection_->lock();
      relay_->take_stream(lock, std::move(link.stream));
    }
    look();
  } catch (const process::ExecError& error) {
    close("cannot start '" + launch_.argv[0] + "': " + error.code().message());
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
  if (!process_) {
    return;
  }
  const auto status = process_->poll();
  auto lock = connection_->lock();
  const bool spoken = relay_->has_spoken(lock);
  const bool stream_ended = relay_->stream_ended(lock);
  const bool channel_ended = relay_->channel_ended(lock);
  if (status) {
    connection_->loop()->unwatch(process_watch_);
    relay_->shut_down(lock);  // a grandchild may hold it open; what was said is still relayed
  }
  lock.unlock();
  if (spoken) {
    stderr_->pass_on();
    if (!oom_) {
      oom_.emplace(process_->pid());
    }
  }
  if (status && stream_ended) {
    const std::string said = stderr_->text();
    const std::string how = oom_ && !killed_ ? process::describe_end(*status, *oom_) : status->describe();
    close(how + (said.empty() ? "" : "\n" + said));
  } else if (!status && (channel_ended || stream_ended) && !std::exchange(ending_, true)) {
    // What could still be written is, while the process looks for its end.
    later(channel_ended ? kEndsWithin : kFinishesWithin, &OpenedProcess::kill);
  }
}

void OpenedProcess::kill() {
  if (!process_->poll()) {
    killed_ = true;
    process_->kill_tree();
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

void OpenedProcess::end_all(const std::vector<std::shared_ptr<OpenedProcess>>& opened) {
  std::vector<process::Process*> running;
  for (const auto& one : opened) {
    if (one->process_ && !one->process_->poll()) {
      auto lock = one->connection_->lock();
      one->relay_->shut_down(lock);
      running.push_back(one->process_.get());
    }
  }
  const base::Deadline deadline = base::Clock::now() + kEndsWithin;
  std::erase_if(running, [&](process::Process* process) { return process->wait({.deadline = deadline}).has_value(); });
  if (!running.empty()) {
    process::kill_trees(running);
  }
}

}  // namespace execnet::core
