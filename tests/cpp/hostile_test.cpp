// Bytes of a hostile peer: whatever they are, they end in a LoadError or a clean disconnect,
// and take memory in proportion to their size. The long form is `make soak`.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <execnet/execnet.hpp>
#include <fstream>
#include <memory>
#include <span>

#include "base/syscall.hpp"
#include "connection/channel_handle.hpp"
#include "connection/value_message.hpp"
#include "gateway/worker_end.hpp"
#include "hello.hpp"
#include "mutator.hpp"
#include "soak.hpp"
#include "vectors.hpp"

namespace execnet {
namespace {

using core::Connection;
using testing::FrameMutator;
using testing::MemoryBound;

constexpr std::chrono::seconds kPatience{30};
constexpr std::size_t kMostMegabytes = 64;           // resident, above what the test began with
constexpr std::size_t kMostAddressMegabytes = 1024;  // each thread may reserve 128 for its heap
constexpr std::string_view kMark = "the mark";

base::Wait soon() { return {.deadline = base::Clock::now() + kPatience}; }

class Figures {
 public:
  explicit Figures(std::string what) : what_(std::move(what)) {}
  void report(std::size_t inputs, const std::string& outcome, const MemoryBound& memory) const {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
    std::array<char, 64> figures{};
    std::snprintf(figures.data(), figures.size(), "%.1f s, peak memory %zu MB (+%zu)", seconds, memory.peak(),
                  memory.growth());
    testing::soak_report(what_ + ": " + std::to_string(inputs) + " inputs, " + outcome + "; " + figures.data());
  }

 private:
  const std::string what_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

void send_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count < 0) {
      return;  // the other side has closed
    }
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
}

std::string frame(wire::FrameType type, std::uint32_t channel, std::string_view payload) {
  const auto header =
      wire::pack({.type = type, .channel = channel, .length = static_cast<std::uint32_t>(payload.size())});
  return std::string(header.data(), header.size()).append(payload);
}

TEST(HostileBytes, EndLoadsInALoadErrorOrAValue) {
  const std::size_t inputs = testing::soak_inputs(20'000);
  testing::Mutator mutator(testing::soak_seed());
  const auto seeds = testing::dumps_seeds();
  const MemoryBound memory(kMostAddressMegabytes);
  const Figures figures("loads, C++");
  std::size_t values = 0;
  for (std::size_t i = 0; i < inputs; ++i) {
    const std::string input = mutator.mutant(seeds);
    try {
      const Value value = loads(input, {.py2str_as_py3str = i % 2 == 0, .py3str_as_py2str = i % 3 == 0});
      ++values;
    } catch (const LoadError& error) {
      ASSERT_LE(error.offset(), input.size()) << "input " << i;
    }
  }
  figures.report(inputs, std::to_string(values) + " values, the others LoadErrors", memory);
  EXPECT_GT(values, inputs / 100);
  EXPECT_LT(values, inputs * 9 / 10);
  EXPECT_TRUE(memory.holds(kMostMegabytes)) << memory.growth() << " MB more";
}

// The coordinator's side of a gateway whose worker is the test.
class HostilePeer final : public core::ConnectionOwner, public std::enable_shared_from_this<HostilePeer> {
 public:
  HostilePeer(base::Fd stream, std::shared_ptr<loop::Loop> loop)
      : connection(std::make_shared<Connection>(std::move(stream), std::move(loop), core::Side::kCoordinator)) {}

  void on_hello(Lock& /*lock*/, base::Buffer payload) override {
    if (payload.view() == kMark) {
      ++marks;
    } else {
      static_cast<void>(core::decode_value(payload.view()).as<Dict>());
    }
  }
  void on_exec(Lock&, const std::shared_ptr<core::ChannelState>&, base::Buffer) override {
    throw wire::ProtocolError("EXEC came from a worker");
  }
  void on_open(Lock&, const std::shared_ptr<core::ChannelState>&, base::Buffer) override {
    throw wire::ProtocolError("OPEN came from a worker");
  }
  void on_status_request(Lock&, std::uint32_t) override { throw wire::ProtocolError("STATUS came from a worker"); }
  void on_terminate(Lock&) override { throw wire::ProtocolError("TERMINATE came from a worker"); }
  void on_stream_end(const std::string& error) override { connection->finish("the stream ended: " + error); }

  const std::shared_ptr<Connection> connection;
  std::size_t marks = 0;  // guarded by the connection's mutex
};

// The result of the frame reader alone for a stream.
enum class Reading : std::uint8_t { kComplete, kWithinFrame, kRefused };

Reading read_alone(std::string_view stream) {
  wire::FrameParser parser;
  wire::MessageAssembler assembler;
  try {
    while (!stream.empty()) {
      const auto space = parser.space();
      const std::size_t size = std::min(space.size(), stream.size());
      std::copy_n(stream.begin(), size, space.begin());
      stream.remove_prefix(size);
      parser.received(size);
      while (auto received = parser.next()) {
        static_cast<void>(assembler.add(std::move(*received)));
      }
    }
  } catch (const wire::ProtocolError&) {
    return Reading::kRefused;
  }
  return parser.within_frame() ? Reading::kWithinFrame : Reading::kComplete;
}

class Sink final : public core::Callback {
 public:
  std::optional<std::string> on_item(base::Buffer, StringConfig) override { return std::nullopt; }
  void on_end() override {}
};

// One connection, which is fed with streams until it ends.
class Conversation {
 public:
  Conversation(std::shared_ptr<loop::Loop> loop, bool with_callback) {
    auto [here, there] = base::socket_pair();
    there_ = std::move(there);
    peer_ = std::make_shared<HostilePeer>(std::move(here), std::move(loop));
    peer_->connection->start(peer_);
    auto lock = peer_->connection->lock();
    for (auto& channel : channels_) {
      channel = peer_->connection->new_channel(lock);
    }
    lock.unlock();
    if (with_callback) {
      channels_.back()->set_callback(std::make_shared<Sink>());
    }
  }
  ~Conversation() {
    there_.reset();
    peer_->connection->finish("test over");
    peer_->connection->dispatcher().join({.deadline = base::Clock::now() + kPatience});
  }
  Conversation(const Conversation&) = delete;
  Conversation& operator=(const Conversation&) = delete;

  // Feeds streams, with a mark after each, until one of them must or did end the connection. Returns how many it took.
  std::size_t run(FrameMutator& frames, std::size_t most) {
    constexpr std::size_t kBatch = 16 * 1024;  // fits into the socket whatever the peer does
    std::size_t taken = 0;
    bool ends = false;
    std::string bytes(wire::kMagic);
    const std::string mark = frame(wire::FrameType::kHello, 0, kMark);
    while (taken < most && !ends) {
      const std::size_t marks = marks_seen();
      std::size_t sent = 0;
      while (bytes.size() < kBatch && taken + sent < most && !ends) {
        const std::string stream = frames.stream();
        ends = read_alone(stream) != Reading::kComplete;
        bytes.append(stream);
        ++sent;
        if (!ends) {
          bytes.append(mark);
        }
      }
      send_all(there_.get(), bytes);
      bytes.clear();
      if (ends) {
        ::shutdown(there_.get(), SHUT_WR);
      }
      ends = !wait_for(marks + sent, ends) || ends;
      const std::size_t seen = marks_seen() - marks;
      taken += std::min(sent, seen + 1);
      load_items();
    }
    return taken;
  }

  // Why the connection is gone, if it is.
  std::optional<std::string> cause() {
    auto lock = peer_->connection->lock();
    return peer_->connection->gone(lock);
  }

 private:
  std::size_t marks_seen() {
    auto lock = peer_->connection->lock();
    return peer_->marks;
  }

  // False when the connection has ended instead.
  bool wait_for(std::size_t marks, bool must_end) {
    Connection& connection = *peer_->connection;
    auto lock = connection.lock();
    const bool done = connection.wait_until(lock, &connection, soon(), [&] {
      return connection.gone(lock).has_value() || (!must_end && peer_->marks >= marks);
    });
    EXPECT_TRUE(done) << "neither went on nor ended";
    return done && !connection.gone(lock);
  }

  void load_items() {
    for (const auto& channel : channels_) {
      while (const auto item = channel->try_receive()) {
        try {
          static_cast<void>(core::decode_value(item->view(), peer_->connection.get(), channel->strings()));
        } catch (const LoadError&) {
        }
      }
    }
  }

  base::Fd there_;
  std::shared_ptr<HostilePeer> peer_;
  std::array<std::shared_ptr<core::ChannelHandle>, 4> channels_;
};

TEST(HostileBytes, EndACoordinatorsConnectionWithACauseOrAreTakenIn) {
  const std::size_t inputs = testing::soak_inputs(10'000);
  FrameMutator frames(FrameMutator::From::kWorker, testing::soak_seed());
  const auto loop = std::make_shared<loop::Loop>();
  const MemoryBound memory(kMostAddressMegabytes);
  const Figures figures("frames to a coordinator's connection");
  std::size_t taken = 0;
  std::size_t connections = 0;
  std::size_t refused = 0;
  while (taken < inputs && !HasFailure()) {
    Conversation conversation(loop, ++connections % 16 == 0);
    taken += conversation.run(frames, std::min<std::size_t>(inputs - taken, 2000));
    if (const auto cause = conversation.cause()) {
      ASSERT_NE(*cause, "");
      ASSERT_EQ(cause->find("bad_alloc"), std::string::npos) << *cause;
      ++refused;
    }
  }
  loop->stop();
  figures.report(taken, std::to_string(connections) + " connections, " + std::to_string(refused) + " refused", memory);
  EXPECT_GT(refused, connections / 2);
  EXPECT_TRUE(memory.holds(kMostMegabytes)) << memory.growth() << " MB more";
}

// Hides stderr while the object lives: a worker's end complains there about each stream.
class WithoutStderr {
 public:
  WithoutStderr() : before_(::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0)) {
    const base::Fd null(base::check("open", [] { return ::open("/dev/null", O_WRONLY | O_CLOEXEC); }));
    ::dup2(null.get(), STDERR_FILENO);
  }
  ~WithoutStderr() { ::dup2(before_.get(), STDERR_FILENO); }
  WithoutStderr(const WithoutStderr&) = delete;
  WithoutStderr& operator=(const WithoutStderr&) = delete;

 private:
  const base::Fd before_;
};

std::string hello_of_a_coordinator() { return frame(wire::FrameType::kHello, 0, testing::coordinator_hello().view()); }

// Does what a worker in C++ would do with a request: decodes it and uses the channels in it.
std::optional<std::string> run_request(const core::WorkerEnd::Task& task) {
  try {
    Connection& connection = task.channel->connection();
    const Value request = core::decode_value(task.payload.view(), &connection, task.channel->strings());
    task.channel->send(core::encode_value(request, &connection), soon());
    return std::nullopt;
  } catch (const Error& error) {
    return error.what();
  }
}

// Two tasks with one channel would both end it.
TEST(HostileBytes, OneChannelIsUsedForOneExec) {
  const std::string exec = frame(wire::FrameType::kExec, 1, core::encode_value(Value("run this")).view());
  auto [here, there] = base::socket_pair();
  send_all(there.get(), hello_of_a_coordinator() + exec + exec);
  ::shutdown(there.get(), SHUT_WR);
  std::atomic<int> runs = 0;
  const auto run = [&](const core::WorkerEnd::Task&) -> std::optional<std::string> {
    ++runs;
    return std::nullopt;
  };
  const WithoutStderr quiet;
  const auto end = core::WorkerEnd::open(std::move(here), run, {kPatience, kPatience});
  ASSERT_TRUE(end->wait_setup(soon()));
  end->serve(soon());
  end->stop();
  EXPECT_EQ(runs, 1);
}

TEST(HostileBytes, EndAWorkersConnectionOrAreTakenIn) {
  const std::size_t inputs = testing::soak_inputs(2'000);
  FrameMutator frames(FrameMutator::From::kCoordinator, testing::soak_seed());
  const std::string hello = hello_of_a_coordinator();
  const MemoryBound memory(kMostAddressMegabytes);
  const Figures figures("frames to a native worker's end");
  std::size_t fed = 0;
  std::size_t connections = 0;
  {
    const WithoutStderr quiet;
    while (fed < inputs) {
      auto [here, there] = base::socket_pair();
      std::string bytes = frames.mutator().one_in(8) ? "" : hello;
      bool ends = false;
      for (std::size_t i = 0; i < 20 && fed < inputs && !ends; ++i) {
        const std::string stream = frames.stream();
        ends = read_alone(stream) != Reading::kComplete;
        bytes.append(stream);
        ++fed;
      }
      ++connections;
      send_all(there.get(), bytes);
      ::shutdown(there.get(), SHUT_WR);
      const auto end = core::WorkerEnd::open(std::move(here), run_request, {kPatience, kPatience});
      const auto begin = base::Clock::now();
      static_cast<void>(end->wait_setup(soon()));
      end->serve(soon());
      end->stop();
      ASSERT_LT(base::Clock::now() - begin, kPatience);
    }
  }
  figures.report(fed, std::to_string(connections) + " connections", memory);
  EXPECT_TRUE(memory.holds(kMostMegabytes)) << memory.growth() << " MB more";
}

// A program in place of an interpreter that prints the content of a file.
class FileAsWorker {
 public:
  FileAsWorker() {
    std::string pattern = ::testing::TempDir() + "execnet-hostile-XXXXXX";
    directory_ = ::mkdtemp(pattern.data());
    std::ofstream(program()) << "#!/bin/sh\nexec cat '" << directory_ << "/bytes' >&3\n";
    base::check("chmod", [&] { return ::chmod(program().c_str(), 0700); });
  }
  ~FileAsWorker() {
    ::unlink(program().c_str());
    ::unlink((directory_ + "/bytes").c_str());
    ::rmdir(directory_.c_str());
  }
  FileAsWorker(const FileAsWorker&) = delete;
  FileAsWorker& operator=(const FileAsWorker&) = delete;

  [[nodiscard]] XSpec says(std::string_view bytes) const {
    std::ofstream(directory_ + "/bytes", std::ios::binary) << bytes;
    return XSpec("popen//python=" + program());
  }

 private:
  [[nodiscard]] std::string program() const { return directory_ + "/program"; }

  std::string directory_;
};

std::string hello_of_a_worker() {
  const base::Buffer hello = core::encode_value(Value(Dict{{"protocol", 1},
                                                           {"implementation", "pure"},
                                                           {"version_info", Tuple{3, 11, 0, "final", 0}},
                                                           {"executable", "/bin/sh"},
                                                           {"platform", "linux"},
                                                           {"cwd", "/"},
                                                           {"pid", 1},
                                                           {"features", List{}}}));
  return std::string(hello.view());
}

TEST(HostileBytes, FromAProgramEndItsGatewayWithACauseOrAreTakenIn) {
  const std::size_t inputs = testing::soak_inputs(50);
  FrameMutator frames(FrameMutator::From::kWorker, testing::soak_seed());
  const FileAsWorker worker;
  const std::string hello = hello_of_a_worker();
  const MemoryBound memory(kMostAddressMegabytes);
  const Figures figures("streams to a gateway with a process");
  std::size_t not_started = 0;
  Group group;
  for (std::size_t i = 0; i < inputs; ++i) {
    std::string said(wire::kMagic);
    said += frame(wire::FrameType::kHello, 0,
                  frames.mutator().one_in(2) ? hello : frames.mutator().mutant(std::span(&hello, 1)));
    while (said.size() < 4096) {
      said += frames.stream();
    }
    try {
      Gateway gateway = group.makegateway(worker.says(said));
      gateway.join(kPatience);
      EXPECT_THROW(static_cast<void>(gateway.remote_exec("pass")), GatewayGone);
    } catch (const HostNotFound& error) {
      ASSERT_NE(std::string(error.what()).find("no usable Python"), std::string::npos);
      ++not_started;
    }
    group.terminate(kPatience);
  }
  figures.report(inputs, std::to_string(not_started) + " gateways not started", memory);
  EXPECT_TRUE(memory.holds(kMostMegabytes)) << memory.growth() << " MB more";
}

}  // namespace
}  // namespace execnet
