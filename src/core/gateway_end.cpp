#include "core/gateway_end.hpp"

#include <chrono>
#include <execnet/error.hpp>
#include <utility>

#include "core/value_message.hpp"

namespace execnet::core {
namespace {

// A worker that has not said HELLO by then never will.
constexpr std::chrono::seconds kStartsWithin{60};
// Between the end of a stream and the end of the process behind it, normally microseconds.
constexpr std::chrono::milliseconds kProcessEndsWithin{250};
// After SIGKILL.
constexpr std::chrono::seconds kKilledWithin{2};

Value optional_text(const std::optional<std::string>& text) { return text ? Value(*text) : Value(); }

}  // namespace

std::shared_ptr<GatewayEnd> GatewayEnd::start(const XSpec& spec, const transport::LocalPython& python,
                                              std::shared_ptr<loop::Loop> loop) {
  transport::Launch launch = transport::launch_for(spec, python);
  transport::Link link = transport::open(launch);
  base::Buffer preamble = std::move(link.preamble);
  const std::shared_ptr<GatewayEnd> end(
      new GatewayEnd(spec, std::move(launch), std::move(link), std::move(loop)));  // NOLINT: private constructor
  end->run(std::move(preamble));
  return end;
}

GatewayEnd::GatewayEnd(const XSpec& spec, transport::Launch launch, transport::Link link,
                       std::shared_ptr<loop::Loop> loop)
    : spec_(spec),
      id_(spec.get("id").value()),
      launch_(std::move(launch)),
      command_(std::move(link.command)),
      loop_(std::move(loop)),
      process_(std::move(link.process)),
      stderr_(std::make_shared<StderrTail>(std::move(link.stderr_pipe), loop_)),
      connection_(std::make_shared<Connection>(std::move(link.stream), loop_, Side::kCoordinator)) {}

void GatewayEnd::run(base::Buffer preamble) {
  stderr_->start();
  connection_->start(weak_from_this());
  {
    const std::lock_guard lock(mutex_);
    process_watch_ = loop_->watch(process_->pidfd(), loop::kRead, [weak = weak_from_this()](std::uint32_t) {
      if (const auto self = weak.lock()) {
        self->on_process_end();
      }
    });
  }
  auto lock = connection_->lock();
  connection_->post_raw(lock, std::move(preamble));
  connection_->post(lock, wire::FrameType::kHello, 0, hello());
}

GatewayEnd::~GatewayEnd() {
  loop_->unwatch(process_watch_);
  connection_->finish("gateway " + id_ + " was dropped");
}

base::Buffer GatewayEnd::hello() const {
  Dict env;
  for (const auto& [name, value] : spec_.env()) {
    env[name] = value;
  }
  const auto nice = spec_.get("nice");
  Dict hello;
  hello["protocol"] = wire::kProtocolVersion;
  hello["id"] = id_;
  hello["execmodel"] = spec_.get("execmodel").value_or("thread");
  hello["chdir"] = optional_text(spec_.get("chdir"));
  hello["nice"] = nice ? Value(std::stoi(*nice)) : Value();
  hello["env"] = std::move(env);
  hello["dont_write_bytecode"] = spec_.has("dont_write_bytecode");
  return encode_value(Value(std::move(hello)));
}

void GatewayEnd::on_hello(base::Buffer payload) {
  if (info_ || refusal_) {
    throw wire::ProtocolError("a second HELLO came");
  }
  const Dict hello = decode_value(payload.view()).as<Dict>();
  const auto protocol = hello.at("protocol").as<std::int64_t>();
  if (protocol != wire::kProtocolVersion) {
    refusal_ = "the worker speaks protocol version " + std::to_string(protocol) + ", this library version " +
               std::to_string(wire::kProtocolVersion);
    return;
  }
  if (hello.contains("error")) {
    refusal_ = hello.at("error").as<std::string>();
    return;
  }
  RemoteInfo info;
  info.implementation = hello.at("implementation").as<std::string>();
  info.executable = hello.at("executable").as<std::string>();
  info.version_info = hello.at("version_info").as<std::vector<Value>>();
  info.platform = hello.at("platform").as<std::string>();
  info.cwd = hello.at("cwd").as<std::string>();
  info.pid = hello.at("pid").as<std::int64_t>();
  info_ = std::move(info);
}

void GatewayEnd::wait_started(const base::Wait& wait) {
  auto lock = connection_->lock();
  const bool answered = connection_->wait_until(lock, connection_.get(), wait.until(base::Clock::now() + kStartsWithin),
                                                [&] { return info_ || refusal_ || connection_->gone(lock); });
  if (info_) {
    lock.unlock();
    stderr_->pass_on();
    return;
  }
  const std::optional<std::string> refusal = refusal_;
  lock.unlock();
  if (!answered) {
    fail_start("it did not answer within " + std::to_string(kStartsWithin.count()) + " seconds", wait);
  }
  if (refusal) {
    fail_start(*refusal, wait);
  }
  const auto status = process_->poll();
  std::string why = status ? "it ended with " + status->describe() : "it closed the connection";
  {
    const std::lock_guard own_lock(mutex_);
    if (stream_error_ && !stream_error_->empty()) {
      why += "; " + *stream_error_;
    }
  }
  fail_start(why, wait);
}

void GatewayEnd::fail_start(const std::string& why, const base::Wait& wait) {
  process_->kill_tree();
  process_->wait({.deadline = base::Clock::now() + kKilledWithin, .hub = wait.hub});
  std::string text = "no usable Python for '" + spec_.text() + "': " + why;
  if (const std::string said = stderr_->text(); !said.empty()) {
    text += "\non its stderr: " + said;
  }
  text += "\ncommand: " + command_;
  connection_->finish(text);
  throw HostNotFound(text);
}

void GatewayEnd::on_process_end() {
  if (!process_->poll()) {
    return;
  }
  // What a grandchild holds open is not the worker: the stream ends with the process. What had
  // arrived is still read, by whoever reads, up to the end that this makes.
  connection_->shut_down();
  const bool stream_ended = [&] {
    const std::lock_guard lock(mutex_);
    loop_->unwatch(process_watch_);
    return stream_error_.has_value();
  }();
  if (stream_ended) {
    finish();
  }
}

void GatewayEnd::on_stream_end(const std::string& error) {
  {
    const std::lock_guard lock(mutex_);
    stream_error_ = error;
  }
  if (process_->poll()) {
    finish();
    return;
  }
  loop_->call_after(kProcessEndsWithin, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) {
      self->finish();
    }
  });
}

void GatewayEnd::finish() { connection_->finish(cause()); }

std::string GatewayEnd::cause() {
  std::string text = "gateway " + id_ + " (" + spec_.text() + ") is gone: ";
  const auto status = process_->poll();
  const std::lock_guard lock(mutex_);
  if (status) {
    text += status->describe();
  } else {
    text += "it closed the connection";
  }
  if (stream_error_ && !stream_error_->empty()) {
    text += "; " + *stream_error_;
  }
  if (exit_sent_) {
    text += "; it was told to exit";
  }
  if (const std::string said = stderr_->text(); !said.empty()) {
    text += "\nlast on its stderr: " + said;
  }
  return text;
}

std::shared_ptr<ChannelHandle> GatewayEnd::exec(base::Buffer payload, const base::Wait& wait) {
  auto lock = connection_->lock();
  if (connection_->gone(lock)) {
    connection_->throw_gone(lock);
  }
  auto channel = connection_->new_channel(lock);
  try {
    connection_->send(lock, wire::FrameType::kExec, channel->id(), std::move(payload), wait);
  } catch (...) {
    lock.unlock();  // the channel that nothing knows of takes the lock to close itself
    throw;
  }
  return channel;
}

std::shared_ptr<ChannelHandle> GatewayEnd::newchannel() {
  auto lock = connection_->lock();
  if (connection_->gone(lock)) {
    connection_->throw_gone(lock);
  }
  return connection_->new_channel(lock);
}

Dict GatewayEnd::remote_status(const base::Wait& wait) {
  const auto channel = newchannel();
  {
    auto lock = connection_->lock();
    connection_->send(lock, wire::FrameType::kStatus, channel->id(), {}, wait);
  }
  return decode_value(channel->receive(wait).view()).as<Dict>();
}

void GatewayEnd::reconfigure(StringConfig strings) {
  auto lock = connection_->lock();
  connection_->set_strings(lock, strings);
  connection_->post(lock, wire::FrameType::kReconfigure, 0,
                    encode_value(Value(Tuple{strings.py2str_as_py3str, strings.py3str_as_py2str})));
}

void GatewayEnd::exit() {
  if (connection_->in_forked_copy()) {
    return;
  }
  auto lock = connection_->lock();
  {
    const std::lock_guard own_lock(mutex_);
    if (std::exchange(exit_sent_, true)) {
      return;
    }
  }
  if (!connection_->gone(lock)) {
    connection_->post(lock, wire::FrameType::kTerminate, 0);
  }
}

bool GatewayEnd::hasreceiver() const {
  if (connection_->in_forked_copy()) {
    return false;
  }
  auto lock = connection_->lock();
  return !connection_->gone(lock);
}

void GatewayEnd::join(const base::Wait& wait) {
  auto lock = connection_->lock();
  if (!connection_->wait_until(lock, connection_.get(), wait, [&] { return connection_->gone(lock).has_value(); })) {
    throw TimeoutError("gateway " + id_ + " is still there");
  }
}

void GatewayEnd::finish_terminated() {
  connection_->finish("gateway " + id_ + " (" + spec_.text() + ") was terminated by this side");
}

void GatewayEnd::on_exec(Connection::Lock& /*lock*/, const std::shared_ptr<ChannelState>& /*channel*/,
                         base::Buffer /*payload*/) {
  throw wire::ProtocolError("EXEC came from a worker");
}

void GatewayEnd::on_status_request(Connection::Lock& /*lock*/, std::uint32_t /*channel*/) {
  throw wire::ProtocolError("STATUS came from a worker");
}

void GatewayEnd::on_terminate(Connection::Lock& /*lock*/) { throw wire::ProtocolError("TERMINATE came from a worker"); }

}  // namespace execnet::core
