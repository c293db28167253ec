#include "gateway/worker_end.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <execnet/error.hpp>
#include <new>
#include <system_error>
#include <utility>

#include "connection/deflating.hpp"
#include "connection/value_message.hpp"

namespace execnet::core {
namespace {

constexpr std::chrono::milliseconds kRefusalIsReadWithin{2000};
constexpr std::chrono::milliseconds kCallbacksEndWithin{200};
constexpr std::chrono::milliseconds kDeadlockGrace{1000};
constexpr const char* kDeadlockText = "concurrent remote_exec would cause deadlock for main_thread_only execmodel";

template <typename T>
std::optional<T> optional(const Value& value) {
  return value.as<std::optional<T>>();
}

// In one piece, which wakes the other side once.
void post_hello(Connection& connection, Connection::Lock& lock, Dict hello) {
  const base::Buffer payload = encode_value(Value(std::move(hello)));
  const auto header =
      wire::pack({.type = wire::FrameType::kHello, .length = static_cast<std::uint32_t>(payload.size())});
  base::Buffer bytes(wire::kMagic);
  bytes.append({header.data(), header.size()});
  bytes.append(payload.view());
  connection.post_raw(lock, std::move(bytes));
}

}  // namespace

std::shared_ptr<WorkerEnd> WorkerEnd::open(base::Fd stream, Run run, Patience patience) {
  const std::shared_ptr<WorkerEnd> end(new WorkerEnd(std::move(stream), std::move(run), patience));
  end->connection_->start(end, false);
  return end;
}

WorkerEnd::WorkerEnd(base::Fd stream, Run run, Patience patience)
    : run_(std::move(run)),
      patience_(patience),
      loop_(std::make_shared<loop::Loop>()),
      connection_(std::make_shared<Connection>(std::move(stream), loop_, Side::kWorker)),
      main_thread_(pthread_self()),
      runners_(1) {
  runners_.front().idle = true;
  connection_->expect_rings();
  ::pthread_sigmask(SIG_SETMASK, nullptr, &signal_mask_);
}

void WorkerEnd::stop() {
  loop_->stop();
  if (connection_->in_forked_copy()) {
    for (Runner& runner : runners_) {
      base::forget(runner.thread);
    }
  } else {
    OpenedProcess::end_all({opened_.begin(), opened_.end()}, lost_ ? lost_times().ended : OpenedProcess::kEndsWithin);
    if (forks_) {
      forks_->end({.deadline = base::Clock::now()});
    }
  }
  connection_->finish("the worker ends");
  connection_->dispatcher().join({.deadline = base::Clock::now() + kCallbacksEndWithin});
}

// --- Setup ---

void WorkerEnd::on_hello(Lock& lock, base::Buffer payload) {
  if (setup_) {
    throw wire::ProtocolError("a second HELLO came");
  }
  const Dict hello = decode_value(payload.view()).as<Dict>();
  if (const auto protocol = hello.at("protocol").as<std::int64_t>(); protocol != wire::kProtocolVersion) {
    throw wire::ProtocolError("the coordinator speaks protocol version " + std::to_string(protocol) +
                              ", this worker version " + std::to_string(wire::kProtocolVersion));
  }
  WorkerSetup setup;
  setup.id = hello.at("id").as<std::string>();
  setup.execmodel = hello.at("execmodel").as<std::string>();
  setup.chdir = optional<std::string>(hello.at("chdir"));
  setup.nice = optional<int>(hello.at("nice"));
  setup.env = hello.at("env").as<std::map<std::string, std::string>>();
  setup.dont_write_bytecode = hello.at("dont_write_bytecode").as<bool>();
  setup.grace = std::chrono::milliseconds(hello.at("grace").as<std::int64_t>());
  if (setup.grace < std::chrono::milliseconds(0) || setup.grace > XSpec::kMostSeconds) {
    throw wire::ProtocolError("HELLO with a grace of " + std::to_string(setup.grace.count()) + " ms");
  }
  setup.streams = StandardStreams::from_hello(hello);
  if (const auto window = optional<std::int64_t>(hello.at("window"))) {
    if (*window < 1) {
      throw wire::ProtocolError("HELLO with a window of " + std::to_string(*window) + " bytes");
    }
    connection_->set_window(lock, static_cast<std::uint64_t>(*window));
  }
  setup.deflates = hello.at("deflate").as<bool>();
  if (setup.deflates) {
    connection_->expect_deflated();
  }
  setup.trace = static_cast<TraceTo>(hello.at("debug").as<std::uint8_t>());
  setup_ = std::move(setup);
  if (rest_ != nullptr) {
    rest_->answered = !setup_->changes_interpreter();
    if (rest_->answered) {
      rest_->taken(*setup_);
      say_hello(lock, rest_->info);
    } else {
      connection_->touch(lock, &runners_.front());
    }
  }
}

std::optional<WorkerSetup> WorkerEnd::wait_setup(const base::Wait& wait) {
  loop_->start();  // here it can still say so if that fails, for want of descriptors or of a thread
  auto lock = connection_->lock();
  connection_->wait_until(lock, connection_.get(), wait, [&] { return setup_ || connection_->gone(lock); });
  return setup_;
}

void WorkerEnd::say_hello(const WorkerInfo& info) {
  auto lock = connection_->lock();
  say_hello(lock, info);
}

void WorkerEnd::say_hello(Lock& lock, const WorkerInfo& info) {
  // Not before: only now the stderr is what the code will have.
  if (const auto output = TraceOutput::open(setup_->trace)) {
    connection_->set_trace(lock, std::make_unique<Trace>(output, setup_->id));
  }
  Dict hello;
  hello["protocol"] = wire::kProtocolVersion;
  hello["implementation"] = "native";
  hello["version_info"] = Tuple(info.version_info.begin(), info.version_info.end());
  hello["executable"] = info.executable;
  hello["platform"] = info.platform;
  hello["cwd"] = info.cwd;
  hello["pid"] = static_cast<std::int64_t>(::getpid());
  List features;
  if (connection_->has_rings()) {
    features.emplace_back(kRings);
  }
  if (setup_->deflates) {
    features.emplace_back(kDeflate);
    connection_->deflate(lock);
  }
  hello["features"] = std::move(features);
  post_hello(*connection_, lock, std::move(hello));
}

void WorkerEnd::refuse(const std::string& why) {
  Dict hello;
  hello["protocol"] = wire::kProtocolVersion;
  hello["error"] = why;
  auto lock = connection_->lock();
  post_hello(*connection_, lock, std::move(hello));
  connection_->wait_until(lock, connection_.get(), {.deadline = base::Clock::now() + kRefusalIsReadWithin},
                          [&] { return connection_->gone(lock) || ending_; });
}

// --- Resting ---

WorkerEnd::Wanted WorkerEnd::rest(const WorkerInfo& info, std::function<void(const WorkerSetup&)> taken) {
  auto lock = connection_->lock();
  Rest rest{info, std::move(taken)};
  rest_ = &rest;
  const Runner& runner = runners_.front();
  connection_->wait_until(lock, &runner, {}, [&] { return runner.task || ending_ || (setup_ && !rest.answered); });
  rest_ = nullptr;
  if (runner.task && ending_) {  // both came at once
    end_within(ending_times_);
  }
  return runner.task ? Wanted::kForWork : ending_ ? Wanted::kForNothing : Wanted::kForSetup;
}

void WorkerEnd::end_in_time() {
  auto lock = connection_->lock();
  end_within(ending_times_);
}

// --- Running ---

void WorkerEnd::check_has_hello(const char* what) const {
  if (!setup_) {
    throw wire::ProtocolError(std::string(what) + " came before HELLO");
  }
}

void WorkerEnd::on_exec(Lock& lock, const std::shared_ptr<ChannelState>& channel, base::Buffer payload) {
  check_has_hello("EXEC");
  if (ending_) {
    return;
  }
  if (std::exchange(channel->executed, true)) {
    throw wire::ProtocolError("EXEC for channel " + std::to_string(channel->id) + " came a second time");
  }
  channel->executing = true;
  const auto task = [&] { return Task{connection_->handle(lock, channel), std::move(payload)}; };
  if (setup_ && setup_->in_greenlets()) {
    queued_.push_back(task());
    return;
  }
  const auto idle = std::find_if(runners_.begin(), runners_.end(), [](const Runner& runner) { return runner.idle; });
  if (idle == runners_.end() && setup_->execmodel == "main_thread_only") {
    queue_for_main(task());
    return;
  }
  Runner* runner = nullptr;
  try {
    loop_->start();  // one that was forked has rested until now
    runner = idle != runners_.end() ? &*idle : &add_runner();
  } catch (const std::system_error& error) {
    channel->executing = false;
    channel->referenced = true;  // it is forgotten when it is over
    connection_->close_channel(lock, channel, std::string("cannot run this, for want of a thread: ") + error.what());
    return;
  }
  runner->idle = false;
  runner->task = task();
  connection_->touch(lock, runner);
}

WorkerEnd::Runner& WorkerEnd::add_runner() {
  Runner& runner = runners_.emplace_back();
  try {
    // The loop thread, which may be the one that reads, has its signals blocked; programs that the code
    // starts would inherit that.
    runner.thread = loop::start_waiting_thread([this, &runner] {
      ::pthread_sigmask(SIG_SETMASK, &signal_mask_, nullptr);
      try {
        connection_->in_thread_scope([&] { run_tasks(runner, {}); });
      } catch (const std::exception& error) {  // for want of memory, say: it may have been given a task already
        on_stream_end(std::string("a thread that runs code has failed: ") + error.what());
      }
    });
  } catch (...) {
    runners_.pop_back();
    throw;
  }
  return runner;
}

void WorkerEnd::queue_for_main(Task task) {
  const std::uint32_t id = task.channel->id();
  queued_.push_back(std::move(task));
  loop_->call_after(kDeadlockGrace, [weak = weak_from_this(), id] {
    const auto self = weak.lock();
    if (!self) {
      return;
    }
    std::optional<Task> refused;
    {
      auto lock = self->connection_->lock();
      const auto found = std::find_if(self->queued_.begin(), self->queued_.end(),
                                      [&](const Task& queued) { return queued.channel->id() == id; });
      if (found != self->queued_.end()) {
        refused = std::move(*found);
        self->queued_.erase(found);
      }
    }
    try {
      if (refused) {
        refused->channel->set_executing(false);
        refused->channel->close(kDeadlockText);
      }
    } catch (const std::exception& error) {  // who waits for it would wait for ever
      self->on_stream_end(std::string("code cannot be refused: ") + error.what());
    }
  });
}

void WorkerEnd::run_tasks(Runner& runner, const base::Wait& wait) {
  auto lock = connection_->lock();
  for (;;) {
    connection_->wait_until(lock, &runner, wait, [&] { return runner.task.has_value() || ending_; });
    if (!runner.task) {
      return;
    }
    Task task = std::move(*runner.task);
    runner.task.reset();
    lock.unlock();
    run_task(runner, std::move(task));
    lock.lock();
  }
}

void WorkerEnd::run_task(Runner& runner, Task task) {
  const std::optional<std::string> error = run_(task);
  task.channel->set_executing(false);
  // Before the CLOSE: who gets it may at once send an EXEC, and expects this thread to be free.
  make_free(runner);
  task.channel->close(error);
}

void WorkerEnd::make_free(Runner& runner) {
  auto lock = connection_->lock();
  if (&runner == &runners_.front() && !queued_.empty()) {
    runner.task = std::move(queued_.front());
    queued_.pop_front();
  } else {
    runner.idle = true;
  }
}

void WorkerEnd::serve(const base::Wait& wait) {
  const auto fail = [this](const std::exception& error) {
    on_stream_end(std::string("the main thread cannot run code any more: ") + error.what());
  };
  try {
    run_tasks(runners_.front(), wait);
  } catch (const std::bad_alloc& error) {
    fail(error);
  } catch (const std::system_error& error) {
    fail(error);
  }
  // No runner is added any more. Those that there are end by themselves or the process is ended.
  for (Runner& runner : runners_) {
    if (runner.thread.joinable()) {
      runner.thread.join();
    }
  }
  auto lock = connection_->lock();
  connection_->dispatcher().wait_idle(lock, {});  // or the process is ended
  join_dispatcher(lock, {});
}

// If it ends, since the coordinator is gone: while its thread can still have the interpreter.
void WorkerEnd::join_dispatcher(Lock& lock, const base::Wait& wait) {
  if (connection_->gone(lock)) {
    lock.unlock();
    connection_->dispatcher().join(wait.until(base::Clock::now() + kCallbacksEndWithin));
  }
}

std::optional<WorkerEnd::Task> WorkerEnd::next_task(const base::Wait& wait) {
  auto lock = connection_->lock();
  connection_->wait_until(lock, connection_.get(), wait,
                          [&] { return !queued_.empty() || (ending_ && in_greenlets_ == 0); });
  if (queued_.empty()) {
    connection_->dispatcher().wait_idle(lock, wait);  // or the process is ended
    join_dispatcher(lock, wait);
    return std::nullopt;
  }
  Task task = std::move(queued_.front());
  queued_.pop_front();
  ++in_greenlets_;
  return task;
}

void WorkerEnd::run(Task task) {
  const std::optional<std::string> error = run_(task);
  task.channel->set_executing(false);
  {
    auto lock = connection_->lock();
    --in_greenlets_;
    connection_->touch(lock, connection_.get());
  }
  task.channel->close(error);
}

// --- Proxy ---

void WorkerEnd::on_open(Lock& lock, const std::shared_ptr<ChannelState>& channel, base::Buffer payload) {
  if (ending_) {
    return;
  }
  try {
    loop_->start();  // as for EXEC
  } catch (const std::system_error& error) {
    channel->referenced = true;
    connection_->close_channel(lock, channel, std::string("cannot start a process: ") + error.what());
    return;
  }
  if (!forks_) {
    forks_ = std::make_shared<ForkServers>(loop_);
  }
  try {
    opened_.push_back(OpenedProcess::open(lock, connection_, channel, payload, forks_));
  } catch (const std::system_error& error) {
    channel->referenced = true;  // it is forgotten when it is over
    connection_->close_channel(lock, channel, std::string("cannot start it, for want of a thread: ") + error.what());
    return;
  }
  opened_.back()->when_over([weak = weak_from_this(), opened = opened_.back().get()] {
    if (const auto self = weak.lock()) {
      auto own_lock = self->connection_->lock();
      self->opened_.remove_if([&](const auto& one) { return one.get() == opened; });
    }
  });
}

void WorkerEnd::on_status_request(Lock& lock, std::uint32_t channel) {
  check_has_hello("STATUS");
  Dict status;
  const auto executing = std::count_if(runners_.begin(), runners_.end(), [](const Runner& r) { return !r.idle; });
  status["numchannels"] = static_cast<std::int64_t>(connection_->open_channels(lock));
  status["numexecuting"] =
      static_cast<std::int64_t>(executing) + static_cast<std::int64_t>(queued_.size() + in_greenlets_);
  status["execmodel"] = setup_->execmodel;
  const Connection::Flows flows = connection_->flows(lock);
  status["numblocked"] = static_cast<std::int64_t>(flows.blocked);
  status["outstanding"] = static_cast<std::int64_t>(flows.outstanding);
  connection_->answer(lock, channel, encode_value(Value(std::move(status))));
}

// --- The end ---

void WorkerEnd::on_terminate(Lock& lock) {
  if (!std::exchange(ending_, true)) {
    connection_->end_receiving(lock);
    connection_->touch_all(lock);  // threads that wait for something to run
    end_within({patience_.terminated, 2 * patience_.terminated});
  }
}

void WorkerEnd::on_stream_end(const std::string& error) {
  pollfd out{complaints_, POLLOUT, 0};
  if (!error.empty() && ::poll(&out, 1, 0) > 0) {  // else nobody reads it, and this must not wait for that
    const std::string text = "execnet worker: " + error + "\n";
    static_cast<void>(!::write(out.fd, text.data(), text.size()));
  }
  {
    auto lock = connection_->lock();
    lost_ = !std::exchange(ending_, true) || lost_;
    end_within(lost_times());
  }
  connection_->finish("the coordinator is gone");
}

// Who has told it to end has set a time, which may be over.
WorkerEnd::Times WorkerEnd::lost_times() const {
  return {patience_.lost, patience_.lost + (lost_ && setup_ ? setup_->grace : patience_.lost)};
}

// The loop thread ends the process whatever the interpreter's threads do: it needs no lock of theirs.
void WorkerEnd::end_within(Times times) {
  if (rest_ != nullptr) {  // the main thread sees it at once
    ending_times_ = times;
    return;
  }
  try {
    end_by_force_after(times);
  } catch (const std::exception&) {
    // There never was a thread for the loop, so no code has run: it ends by itself.
  }
}

void WorkerEnd::end_by_force_after(Times times) {
  loop_->call_after(times.interrupted, [main = main_thread_] { ::pthread_kill(main, SIGINT); });
  loop_->call_after(times.ended, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      const auto opened = [&] {
        auto lock = self->connection_->lock();
        return std::vector(self->opened_.begin(), self->opened_.end());
      }();
      OpenedProcess::end_all(opened, OpenedProcess::kEndsWithin);
    }
    ::_exit(1);
  });
}

}  // namespace execnet::core
