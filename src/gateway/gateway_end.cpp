#include "gateway/gateway_end.hpp"

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <exception>
#include <execnet/error.hpp>
#include <string_view>
#include <tuple>
#include <utility>

#include "base/printable.hpp"
#include "base/syscall.hpp"
#include "connection/deflating.hpp"
#include "connection/value_message.hpp"
#include "gateway/socket_start.hpp"
#include "transport/bootstrap.hpp"

namespace execnet::core {
namespace {

// Between the end of a stream and the end of the process behind it. Normally microseconds, but on a machine that is
// busy the guards take their time, and what has ended it is worth waiting for.
constexpr std::chrono::seconds kProcessEndsWithin{1};
// Between the end of a process here and the last that it has sent over TCP.
constexpr std::chrono::milliseconds kLastBytesWithin{250};
// After SIGKILL.
constexpr std::chrono::seconds kKilledWithin{2};

constexpr const char* kSshFailed = "exit status 255";
constexpr std::chrono::seconds kStartsWithin{60};

// EXECNET_RINGS=0 and EXECNET_DEFLATE=0 turn off what is used where it can be.
bool is_wanted(const char* variable) {
  const char* setting = std::getenv(variable);
  return setting == nullptr || std::string_view(setting) != "0";
}

Value optional_text(const std::optional<std::string>& text) { return text ? Value(*text) : Value(); }

// The coordinator's HELLO.
base::Buffer hello(const XSpec& spec, bool deflates, const TraceOutput* trace) {
  Dict env;
  for (const auto& [name, value] : spec.env()) {
    env[name] = value;
  }
  const auto nice = spec.get("nice");
  const auto window = spec.window();
  const std::string execmodel = spec.execmodel().value_or("thread");
  Dict keys;
  keys["protocol"] = wire::kProtocolVersion;
  keys["id"] = spec.get("id").value() + "-worker";  // as programs there know it
  keys["execmodel"] = execmodel;
  keys["chdir"] = optional_text(spec.get("chdir"));
  keys["nice"] = nice ? Value(std::stoi(*nice)) : Value();
  keys["env"] = std::move(env);
  keys["dont_write_bytecode"] = spec.has("dont_write_bytecode");
  // Who asks for main_thread_only runs a test runner there or the like, whose own output is for nobody.
  const std::string out = spec.get("stdout").value_or(execmodel == "main_thread_only" ? "devnull" : "inherit");
  keys["stdin"] = spec.get("stdin").value_or("inherit");  // of what has started it, which has given it none
  keys["stdout"] = out == "null" ? "devnull" : out;
  keys["stderr"] = spec.get("stderr").value_or("inherit");
  keys["grace"] = static_cast<std::int64_t>(spec.grace().count());
  keys["detached"] = spec.get("detached").value_or("kill");
  keys["window"] = window ? Value(static_cast<std::int64_t>(*window)) : Value();
  keys["deflate"] = deflates;
  keys["debug"] = static_cast<std::int64_t>(trace != nullptr ? trace->to() : TraceTo::kNowhere);
  return encode_value(Value(std::move(keys)));
}

// The same with its header, for who gets it in a line.
std::string hello_frame(const XSpec& spec, bool deflates, const TraceOutput* trace) {
  const base::Buffer payload = hello(spec, deflates, trace);
  const auto header =
      wire::pack({.type = wire::FrameType::kHello, .length = static_cast<std::uint32_t>(payload.size())});
  return std::string(header.data(), header.size()) + std::string(payload.view());
}

}  // namespace

std::shared_ptr<GatewayEnd> GatewayEnd::start(const XSpec& spec, const std::vector<std::string>& command, bool may_ask,
                                              const transport::LocalPython& python,
                                              const std::shared_ptr<GatewayEnd>& other,
                                              std::shared_ptr<loop::Loop> loop, ForkServers::Batch& forks,
                                              const std::shared_ptr<const TraceOutput>& trace, const base::Wait& wait) {
  loop->start();  // what can fail for want of descriptors or threads does before there is a process
  transport::Launch launch;
  base::Fd stream;
  base::Fd stdout_pipe;
  std::shared_ptr<FarEnd> far_end;
  base::Buffer first;
  bool hello_follows = true;
  if (spec.type() == "socket") {
    SocketStart socket = other ? install_server(spec, *other, wait)
                               : connect_to_server(spec, hello_frame(spec, false, trace.get()), wait);
    launch = std::move(socket.launch);
    launch.spec = transport::without_secrets(spec.text());
    stream = std::move(socket.stream);
    first = std::move(socket.first);
    hello_follows = other != nullptr;
    if (socket.process) {
      far_end = std::make_shared<LocalProcess>(std::move(socket.process), base::Fd(), loop);
    } else {
      far_end = std::make_shared<Stranger>();
    }
  } else {
    launch = command.empty() ? transport::launch_for(spec, other ? other->python_for_others(python) : python, may_ask)
                             : transport::launch_of(spec, python, command);
    if (other && spec.needs_socket() && !launch.forks && !other->is_native()) {
      throw SpecError("transport=socket in \"" + launch.spec + "\", and its proxy '" + other->id() +
                      "' is a pure worker, which gives what it starts no more than standard input and output; leave "
                      "out transport=");
    }
    launch.deflates = launch.deflates && is_wanted("EXECNET_DEFLATE");
    if (!command.empty()) {
      first.append(transport::stdin_line(hello_frame(spec, launch.deflates, trace.get())));
      hello_follows = false;
    } else if (!launch.forks) {
      first = transport::preamble(launch);
    }
    if (launch.forks && !other) {
      auto [ours, theirs] = base::socket_pair();
      stream = std::move(ours);
      base::Fd stdout_out;
      if (launch.captures_stdout) {
        std::tie(stdout_pipe, stdout_out) = base::make_pipe();
      }
      far_end = forks.fork(launch, std::move(theirs), std::move(stdout_out));
    } else if (other) {
      auto [ours, relayed] = base::socket_pair();
      stream = std::move(ours);
      try {
        far_end = ProxiedProcess::open(other->connection(), launch, std::move(relayed));
      } catch (const GatewayGone& error) {
        throw HostNotFound("no usable Python for '" + launch.spec + "': its proxy is gone: " + error.what());
      }
    } else {
      transport::Link link = transport::open(launch);
      stream = std::move(link.stream);
      stdout_pipe = std::move(link.stdout_pipe);
      far_end = std::make_shared<LocalProcess>(std::move(link.process), std::move(link.stderr_pipe), loop);
    }
  }
  const bool rings = launch.native && !other && is_wanted("EXECNET_RINGS");
  const std::shared_ptr<GatewayEnd> end(new GatewayEnd(spec, other, std::move(launch), std::move(far_end),
                                                       std::move(stream),
                                                       std::move(loop)));  // NOLINT: private constructor
  if (rings) {
    end->connection_->offer_rings();
  }
  if (stdout_pipe) {
    end->output_ = std::make_shared<WorkerOutput>(std::move(stdout_pipe), end->connection_);
  }
  end->run(std::move(first), hello_follows, trace);
  return end;
}

// The interpreter of a plain `popen` that is started where this worker is.
transport::LocalPython GatewayEnd::python_for_others(const transport::LocalPython& ours) const {
  const bool native = is_native();
  return {.executable = info_->executable,
          .native_module = native ? ours.native_module : "",
          .options = native ? ours.options : std::vector<std::string>(),
          .imports_first = !native || ours.imports_first};
}

GatewayEnd::GatewayEnd(const XSpec& spec, const std::shared_ptr<GatewayEnd>& leader, transport::Launch launch,
                       std::shared_ptr<FarEnd> far_end, base::Fd stream, std::shared_ptr<loop::Loop> loop)
    : spec_(spec),
      id_(spec.get("id").value()),
      leader_(leader),
      launch_(std::move(launch)),
      loop_(std::move(loop)),
      far_end_(std::move(far_end)),
      connection_(std::make_shared<Connection>(std::move(stream), loop_, Side::kCoordinator)) {}

void GatewayEnd::run(base::Buffer first, bool hello_follows, const std::shared_ptr<const TraceOutput>& trace) {
  if (trace) {
    auto tracing = std::make_unique<Trace>(trace, id_);
    tracing->note("starts " + launch_.spec + (launch_.argv.empty() ? "" : ": " + transport::command_line(launch_)));
    auto lock = connection_->lock();
    connection_->set_trace(lock, std::move(tracing));
  }
  {
    const XSpec::Limits given = spec_.limits();
    Limits limits = Limits::of_this_machine();
    limits.bytes = given.bytes.value_or(limits.bytes);
    limits.channels = given.channels.value_or(limits.channels);
    limits.messages = given.messages.value_or(limits.messages);
    connection_->set_limits(connection_->lock(), limits);
  }
  if (const auto window = spec_.window()) {
    auto lock = connection_->lock();
    connection_->set_window(lock, *window);
  }
  if (launch_.deflates) {
    connection_->expect_deflated();
  }
  connection_->start(weak_from_this());
  {
    const std::lock_guard lock(mutex_);
    end_watch_ = far_end_->watch_end(*loop_, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) {
        try {
          self->on_far_end_ended();
        } catch (const std::exception& error) {
          self->unwatch_end();
          self->on_stream_end(std::string("how it ended cannot be found out: ") + error.what());
        }
      }
    });
  }
  auto lock = connection_->lock();
  if (!first.empty()) {
    connection_->post_raw(lock, std::move(first));
  }
  if (hello_follows) {
    connection_->post(lock, wire::FrameType::kHello, 0, hello(spec_, launch_.deflates, trace.get()));
  }
}

GatewayEnd::~GatewayEnd() {
  loop_->unwatch(end_watch_);
  try {
    far_end_->let_go();
    finish_output();
    connection_->finish("gateway " + id_ + " was dropped");
  } catch (const std::exception&) {  // no memory to say so
    connection_->shut_down();
  }
}

void GatewayEnd::on_hello(Connection::Lock& lock, base::Buffer payload) {
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
  const auto features = hello.at("features").as<std::vector<std::string>>();
  const auto has = [&](const char* feature) {
    return std::find(features.begin(), features.end(), feature) != features.end();
  };
  if (has(kRings)) {
    connection_->agree_on_rings(lock);
  }
  if (launch_.deflates && has(kDeflate)) {
    connection_->deflate(lock);
  }
}

GatewayEnd::Start GatewayEnd::start_until(const base::Wait& wait) {
  auto lock = connection_->lock();
  const auto known = [&] { return info_ || refusal_ || connection_->gone(lock); };
  if (!(wait.deadline ? connection_->wait_until(lock, connection_.get(), wait, known) : known())) {
    return Start::kComing;
  }
  return info_ ? Start::kServes : Start::kFailed;
}

std::chrono::milliseconds GatewayEnd::starts_within() const { return spec_.connect_timeout().value_or(kStartsWithin); }

void GatewayEnd::wait_started(const base::Wait& wait, std::chrono::milliseconds within) {
  const Start start = start_until(wait.until(base::Clock::now() + within));
  if (start == Start::kServes) {
    // In a namespace of its own it has told a number that is somebody else's here.
    const bool known_here = launch_.kind == "Popen" && !launch_.isolate;
    far_end_->on_serving(known_here ? std::optional(static_cast<pid_t>(info_->pid)) : std::nullopt);
    return;
  }
  if (start == Start::kComing) {
    fail_start("it did not answer within " + spec_.get("connect_timeout").value_or("60") +
                   " seconds; connect_timeout= in the specification sets how long it may take",
               wait);
  }
  std::optional<std::string> refusal;
  {
    auto lock = connection_->lock();
    refusal = refusal_;
  }
  if (refusal) {
    fail_start(*refusal, wait);
  }
  std::string why = far_end_->ended().value_or("it closed the connection");
  if (why.starts_with("cannot start")) {  // said by the proxy
    why += "; " + launch_.advice;
  }
  {
    const std::lock_guard own_lock(mutex_);
    if (stream_error_ && !stream_error_->empty()) {
      why += "; " + *stream_error_;
    }
  }
  fail_start(why, wait);
}

// Up to OpenSSH 9 the client says `kex_exchange_identification: Connection closed by remote host` first, and then, as
// version 10 alone does, `Connection closed by 192.0.2.1 port 22`. It says that only of a login, never of a session.
bool GatewayEnd::was_refused_for_now() const {
  static constexpr std::string_view kWords[] = {"exchange_identification: ", "Connection closed by ",
                                                "Connection reset by "};
  return launch_.kind.ends_with("Ssh") && std::ranges::any_of(kWords, [&](std::string_view words) {
           return failed_with_.find(words) != std::string::npos;
         });
}

bool GatewayEnd::wanted_answers() const {
  return launch_.kind.ends_with("Ssh") && (failed_with_.find("Permission denied") != std::string::npos ||
                                           failed_with_.find("Host key verification failed") != std::string::npos);
}

void GatewayEnd::fail_start(const std::string& why, const base::Wait& wait) {
  far_end_->on_kill();
  if (process::Process* process = far_end_->process()) {
    process->kill_tree();
  }
  connection_->shut_down();
  FarEnd* const far_end = far_end_.get();
  const base::Wait end{.deadline = base::Clock::now() + kKilledWithin, .hub = wait.hub};
  while (!far_end->ended() && wait_for_an_end(std::span(&far_end, 1), *loop_, end)) {
  }
  std::string text = "no usable Python for '" + launch_.spec + "': " + why;
  failed_with_ = far_end_->said();
  if (!failed_with_.empty()) {
    text += "\non its stderr: " + failed_with_;
  }
  if (!launch_.argv.empty()) {
    text += "\ncommand: " + transport::command_line(launch_);
  }
  text = base::printable(text);  // a host, a worker or a proxy has said most of it
  connection_->finish(text);
  throw HostNotFound(text);
}

void GatewayEnd::on_far_end_ended() {
  if (!far_end_->ended()) {
    return;
  }
  // What a grandchild holds open is not the worker: the stream ends with the process. What had
  // arrived is still read, by whoever reads, up to the end that this makes. Over TCP the last of it
  // may be on its way still, with the end behind it.
  if (spec_.has("socket")) {
    loop_->call_after(kLastBytesWithin, [connection = connection_] { connection->shut_down(); });
  } else {
    connection_->shut_down();
  }
  const bool stream_ended = [&] {
    unwatch_end();
    const std::lock_guard lock(mutex_);
    return stream_error_.has_value();
  }();
  if (stream_ended) {
    finish();
  }
}

void GatewayEnd::on_stream_end(const std::string& error) {
  {
    const std::lock_guard lock(mutex_);
    if (!stream_error_ || stream_error_->empty()) {
      stream_error_ = error;
    }
  }
  try {
    far_end_->on_stream_end();
    if (!far_end_->ended()) {
      loop_->call_after(kProcessEndsWithin, [weak = weak_from_this()] {
        if (const auto self = weak.lock()) {
          self->finish();
        }
      });
      return;
    }
  } catch (const std::exception&) {
    // For want of memory, say. Its end is known all the same.
  }
  finish();
}

void GatewayEnd::unwatch_end() {
  const std::lock_guard lock(mutex_);
  loop_->unwatch(end_watch_);
}

void GatewayEnd::finish() {
  std::string text = "gateway " + id_ + " is gone";
  try {
    text = cause();
  } catch (const std::exception& error) {
    text += std::string(", and why cannot be found out: ") + error.what();
  }
  finish_output();
  connection_->finish(text);
}

std::string GatewayEnd::cause() {
  std::string text = "gateway " + id_ + " (" + launch_.spec + ") is gone: ";
  const auto how = far_end_->ended();
  const std::lock_guard lock(mutex_);
  text += how.value_or("it closed the connection");
  if (launch_.kind.ends_with("Ssh") && !launch_.forks && how == kSshFailed) {
    text += ", with which ssh says that the connection has broken or a signal has ended the worker";
  }
  if (stream_error_ && !stream_error_->empty()) {
    text += "; " + *stream_error_;
  }
  if (exit_sent_) {
    text += "; it was told to exit";
  }
  if (const std::string said = far_end_->said(); !said.empty()) {
    text += "\nlast on its stderr: " + said;
  }
  return base::printable(text);
}

std::shared_ptr<ChannelHandle> GatewayEnd::exec(base::Rope payload, const base::Wait& wait, bool windowed) {
  auto lock = connection_->lock();
  if (connection_->gone(lock)) {
    connection_->throw_gone(lock);
  }
  auto state = connection_->new_state(lock);
  auto channel = connection_->handle(lock, state);
  try {
    if (!windowed && state->flow.window() != kUnbounded) {
      connection_->set_window(lock, state, kUnbounded);
    }
    connection_->use_rings(lock);
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

std::optional<int> GatewayEnd::returncode() const {
  if (connection_->in_forked_copy()) {
    return std::nullopt;
  }
  const auto how = far_end_->ended();  // of a process behind a proxy nothing but this text is known
  return how ? process::returncode_of(*how) : std::nullopt;
}

void GatewayEnd::join(const base::Wait& wait) {
  auto lock = connection_->lock();
  if (!connection_->wait_until(lock, connection_.get(), wait, [&] { return connection_->gone(lock).has_value(); })) {
    throw TimeoutError("gateway " + id_ + " is still there");
  }
}

// Before the connection is: the dispatcher runs what there is to be run until then.
void GatewayEnd::finish_output() noexcept {
  try {
    if (output_) {
      output_->finish();
    }
  } catch (const std::exception&) {
    // For want of memory: the function is not called any more.
  }
}

void GatewayEnd::finish_terminated() {
  finish_output();
  connection_->finish("gateway " + id_ + " (" + launch_.spec + ") was terminated by this side");
}

void GatewayEnd::on_exec(Connection::Lock& /*lock*/, const std::shared_ptr<ChannelState>& /*channel*/,
                         base::Buffer /*payload*/) {
  throw wire::ProtocolError("EXEC came from a worker");
}

void GatewayEnd::on_open(Connection::Lock& /*lock*/, const std::shared_ptr<ChannelState>& /*channel*/,
                         base::Buffer /*payload*/) {
  throw wire::ProtocolError("OPEN came from a worker");
}

void GatewayEnd::on_status_request(Connection::Lock& /*lock*/, std::uint32_t /*channel*/) {
  throw wire::ProtocolError("STATUS came from a worker");
}

void GatewayEnd::on_terminate(Connection::Lock& /*lock*/) { throw wire::ProtocolError("TERMINATE came from a worker"); }

}  // namespace execnet::core
