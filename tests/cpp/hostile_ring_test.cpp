// A hostile peer with rings (connection/link.hpp): it writes anything into the shared memory, at any time. That ends
// the connection or is taken as bytes. Nobody hangs, and nobody reads outside of the ring.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "base/ring.hpp"
#include "base/syscall.hpp"
#include "connection/channel_handle.hpp"
#include "connection/value_message.hpp"
#include "gateway/worker_end.hpp"
#include "hello.hpp"
#include "mutator.hpp"
#include "soak.hpp"

namespace execnet {
namespace {

using core::Connection;
using testing::FrameMutator;
using testing::MemoryBound;

constexpr std::chrono::seconds kPatience{30};
constexpr std::size_t kMostMegabytes = 64;
constexpr std::size_t kMostAddressMegabytes = 1024;
// As in docs/wire_format.md.
constexpr std::size_t kHeaders = 4096;
constexpr std::size_t kCapacity = std::size_t{1} << 20;
constexpr std::size_t kSize = kHeaders + 2 * kCapacity;

base::Wait soon() { return {.deadline = base::Clock::now() + kPatience}; }

std::string frame(wire::FrameType type, std::uint32_t channel, std::string_view payload) {
  const auto header =
      wire::pack({.type = type, .channel = channel, .length = static_cast<std::uint32_t>(payload.size())});
  return std::string(header.data(), header.size()).append(payload);
}

// The memory of both rings, as the peer sees it.
class Scribbler {
 public:
  Scribbler(const base::Fd& memory, FrameMutator& frames)
      : frames_(frames), memory_(::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0)) {
    if (memory_ == MAP_FAILED) {
      base::throw_system_error(errno, "mmap");
    }
  }
  ~Scribbler() { ::munmap(memory_, kSize); }
  Scribbler(const Scribbler&) = delete;
  Scribbler& operator=(const Scribbler&) = delete;

  // Puts frames, good and bad, into the data of a ring. REQUIRES: nobody reads there yet.
  void fill(std::size_t ring) {
    std::string bytes;
    while (bytes.size() < (std::size_t{16} << 10)) {
      bytes += frames_.stream();
    }
    std::memcpy(static_cast<char*>(memory_) + kHeaders + ring * kCapacity, bytes.data(),
                std::min(bytes.size(), kCapacity));
  }

  // Waits until the other side reads there. It would take earlier bells for frames.
  [[nodiscard]] bool wait_for_reader(std::size_t ring) const {
    const base::RingHeader& header = static_cast<const base::RingHeader*>(memory_)[ring];
    const auto begin = base::Clock::now();
    while (header.consumer_reads == 0) {
      if (base::Clock::now() - begin > kPatience) {
        return false;
      }
      std::this_thread::yield();
    }
    return true;
  }

  // Changes one number in one of the two headers.
  void scribble() {
    base::RingHeader& header = static_cast<base::RingHeader*>(memory_)[random().below(2)];
    switch (random().below(4)) {
      case 0: header.written = number(header.written); break;
      case 1: header.read = number(header.read); break;
      case 2: header.consumer_sleeps = static_cast<std::uint32_t>(number(header.consumer_sleeps)); break;
      default: header.producer_sleeps = static_cast<std::uint32_t>(number(header.producer_sleeps)); break;
    }
  }

 private:
  testing::Mutator& random() { return frames_.mutator(); }
  std::uint64_t number(std::uint64_t before) {
    switch (random().below(8)) {
      case 0: return 0;
      case 1: return 1;
      case 2: return before - 1;
      case 3: return kCapacity + random().below(2);
      case 4: return ~std::uint64_t{0} - random().below(2);
      case 5: return std::uint64_t{1} << random().below(64);
      default: return before + random().below(4096);  // as an honest peer would
    }
  }

  FrameMutator& frames_;
  void* const memory_;
};

void send_with(int socket, std::string_view bytes, const base::Fd& descriptor) {
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int fd = descriptor.get();
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  ASSERT_EQ(::sendmsg(socket, &message, MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
}

base::Fd receive_descriptor(int socket) {
  std::array<char, 4096> bytes;
  iovec part{bytes.data(), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  int fd = -1;
  if (::recvmsg(socket, &message, MSG_CMSG_CLOEXEC) > 0 && CMSG_FIRSTHDR(&message) != nullptr) {
    std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
  }
  return base::Fd(fd);
}

void ring_the_bell(int socket) { static_cast<void>(::send(socket, "!", 1, MSG_DONTWAIT | MSG_NOSIGNAL)); }

// The coordinator's side of a gateway whose worker is the test.
class Victim final : public core::ConnectionOwner, public std::enable_shared_from_this<Victim> {
 public:
  Victim(base::Fd stream, std::shared_ptr<loop::Loop> loop)
      : connection(std::make_shared<Connection>(std::move(stream), std::move(loop), core::Side::kCoordinator)) {}

  void on_hello(Lock& lock, base::Buffer /*payload*/) override {
    connection->agree_on_rings(lock);
    connection->use_rings(lock);
  }
  void on_exec(Lock&, const std::shared_ptr<core::ChannelState>&, base::Buffer) override { refuse("EXEC"); }
  void on_open(Lock&, const std::shared_ptr<core::ChannelState>&, base::Buffer) override { refuse("OPEN"); }
  void on_status_request(Lock&, std::uint32_t) override { refuse("STATUS"); }
  void on_terminate(Lock&) override { refuse("TERMINATE"); }
  void on_stream_end(const std::string& error) override { connection->finish("the stream ended: " + error); }

  const std::shared_ptr<Connection> connection;

 private:
  [[noreturn]] static void refuse(const std::string& what) { throw wire::ProtocolError(what + " came from a worker"); }
};

TEST(HostileRings, EndACoordinatorsConnectionWithACause) {
  const std::size_t connections = testing::soak_inputs(300);
  FrameMutator frames(FrameMutator::From::kWorker, testing::soak_seed());
  const auto loop = std::make_shared<loop::Loop>();
  const MemoryBound memory(kMostAddressMegabytes);
  const std::string item(300'000, 'x');
  for (std::size_t i = 0; i < connections; ++i) {
    auto [here, there] = base::socket_pair();
    const auto victim = std::make_shared<Victim>(std::move(here), loop);
    Connection& connection = *victim->connection;
    connection.offer_rings();
    connection.start(victim);
    auto lock = connection.lock();
    const auto channel = connection.new_channel(lock);
    connection.post(lock, wire::FrameType::kHello, 0, testing::coordinator_hello());
    lock.unlock();
    Scribbler scribbler(receive_descriptor(there.get()), frames);
    scribbler.fill(1);
    const std::string said =
        std::string(wire::kMagic) + frame(wire::FrameType::kHello, 0, "") + frame(wire::FrameType::kRings, 0, "");
    ASSERT_EQ(::send(there.get(), said.data(), said.size(), MSG_NOSIGNAL), static_cast<ssize_t>(said.size()));
    ASSERT_TRUE(scribbler.wait_for_reader(1));
    for (std::size_t steps = frames.mutator().below(40); steps > 0; --steps) {
      scribbler.scribble();
      if (frames.mutator().one_in(2)) {
        ring_the_bell(there.get());
      }
      if (frames.mutator().one_in(4)) {
        lock.lock();
        const std::size_t size = frames.mutator().one_in(4) ? item.size() : 10;
        connection.post(lock, wire::FrameType::kData, 1, base::Buffer(std::string_view(item).substr(0, size)));
        lock.unlock();
      }
    }
    there.reset();
    lock.lock();
    ASSERT_TRUE(connection.wait_until(lock, &connection, soon(), [&] { return connection.gone(lock).has_value(); }));
    EXPECT_NE(*connection.gone(lock), "");
    lock.unlock();
    connection.dispatcher().join(soon());
  }
  testing::soak_report("rings against a coordinator: " + std::to_string(connections) + " connections");
  EXPECT_TRUE(memory.holds(kMostMegabytes)) << memory.growth() << " MB more";
}

TEST(HostileRings, EndAWorkersConnection) {
  const std::size_t connections = testing::soak_inputs(300);
  FrameMutator frames(FrameMutator::From::kCoordinator, testing::soak_seed());
  const MemoryBound memory(kMostAddressMegabytes);
  const std::string hello = frame(wire::FrameType::kHello, 0, testing::coordinator_hello().view());
  for (std::size_t i = 0; i < connections; ++i) {
    auto [here, there] = base::socket_pair();
    const base::Fd shared(::memfd_create("execnet", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ASSERT_EQ(::ftruncate(shared.get(), kSize), 0);
    ASSERT_EQ(::fcntl(shared.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    Scribbler scribbler(shared, frames);
    scribbler.fill(0);
    send_with(there.get(), hello, shared);
    const auto run = [](const core::WorkerEnd::Task& task) -> std::optional<std::string> {
      try {
        task.channel->send(core::encode_value(Value("done")), soon());
        return std::nullopt;
      } catch (const Error& error) {
        return error.what();
      }
    };
    const auto end = core::WorkerEnd::open(std::move(here), run, {kPatience, kPatience});
    const auto begin = base::Clock::now();
    ASSERT_TRUE(end->wait_setup(soon()));
    std::thread serving([&] { end->serve(soon()); });
    const std::string switched = frame(wire::FrameType::kRings, 0, "");
    ASSERT_EQ(::send(there.get(), switched.data(), switched.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(switched.size()));
    EXPECT_TRUE(scribbler.wait_for_reader(0));
    for (std::size_t steps = frames.mutator().below(40); steps > 0; --steps) {
      scribbler.scribble();
      if (frames.mutator().one_in(2)) {
        ring_the_bell(there.get());
      }
    }
    there.reset();
    serving.join();
    end->stop();
    ASSERT_LT(base::Clock::now() - begin, kPatience);
  }
  testing::soak_report("rings against a worker's end: " + std::to_string(connections) + " connections");
  EXPECT_TRUE(memory.holds(kMostMegabytes)) << memory.growth() << " MB more";
}

}  // namespace
}  // namespace execnet
