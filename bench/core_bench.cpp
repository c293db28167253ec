// The costs of the C++ library in a program without Python: values as bytes, a pure worker, a ring by itself.
#include <benchmark/benchmark.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <execnet/execnet.hpp>

#include "base/ring.hpp"
#include "values.hpp"

namespace execnet {
namespace {

constexpr int kMessages = 20'000;
constexpr std::size_t kRing = std::size_t{1} << 20;
constexpr std::size_t kBig = std::size_t{64} << 20;

// --- Values ---

void bench_dumps(benchmark::State& state, const Value& value) {
  for ([[maybe_unused]] auto _ : state) {
    benchmark::DoNotOptimize(dumps(value));
  }
}

void bench_loads(benchmark::State& state, const Value& value) {
  const std::string bytes = dumps(value);
  for ([[maybe_unused]] auto _ : state) {
    benchmark::DoNotOptimize(loads(bytes));
  }
}

void register_value(const std::string& name, const Value& value) {
  benchmark::RegisterBenchmark(("dumps, " + name).c_str(), bench_dumps, value);
  benchmark::RegisterBenchmark(("loads, " + name).c_str(), bench_loads, value);
}

// --- A worker ---

void bench_echo(benchmark::State& state) {
  Group group{"popen"};
  const Channel channel = group[0].remote_exec("for item in channel: channel.send(item)");
  for ([[maybe_unused]] auto _ : state) {
    channel.send(1);
    benchmark::DoNotOptimize(channel.receive());
  }
}

void bench_to_worker(benchmark::State& state) {
  Group group{"popen"};
  const Channel sink = group[0].remote_exec(dedent(R"(
      for item in channel:
          if item is None:
              channel.send(None)
  )"));
  while (state.KeepRunningBatch(kMessages)) {
    for (int i = 1; i < kMessages; ++i) {
      sink.send(i);
    }
    sink.send(Value());
    benchmark::DoNotOptimize(sink.receive());
  }
}

void bench_from_worker(benchmark::State& state) {
  Group group{"popen"};
  const Channel source = group[0].remote_exec(dedent(R"(
      for count in channel:
          for item in range(count):
              channel.send(item)
  )"));
  while (state.KeepRunningBatch(kMessages)) {
    source.send(kMessages);
    for (int i = 0; i < kMessages; ++i) {
      benchmark::DoNotOptimize(source.receive());
    }
  }
}

// --- A ring ---

struct Ring {
  const std::unique_ptr<base::RingHeader> header = std::make_unique<base::RingHeader>();
  std::vector<char> data = std::vector<char>(kRing);
  base::RingProducer producer{header.get(), data.data(), kRing};
  base::RingConsumer consumer{header.get(), data.data(), kRing};
};

void bench_ring_in_and_out(benchmark::State& state, std::size_t size) {
  Ring ring;
  std::vector<char> message(size);
  const iovec part{message.data(), size};
  for ([[maybe_unused]] auto _ : state) {
    ring.producer.write({&part, 1});
    benchmark::DoNotOptimize(ring.consumer.read(message));
  }
}

void bench_ring_between_threads(benchmark::State& state) {
  Ring ring;
  std::atomic<bool> over = false;
  std::thread writer([&] {
    std::vector<char> piece(std::size_t{64} << 10);
    const iovec part{piece.data(), piece.size()};
    while (!over) {
      if (ring.producer.write({&part, 1}) == 0) {
        std::this_thread::yield();
      }
    }
  });
  std::vector<char> space(kRing);
  for ([[maybe_unused]] auto _ : state) {
    for (std::size_t count = 0; count < kBig;) {
      const std::size_t got = ring.consumer.read(space);
      count += got;
      if (got == 0) {
        std::this_thread::yield();
      }
    }
  }
  over = true;
  writer.join();
}

void register_all() {
  register_value("100 k ints", bench::ints(100'000));
  register_value("a nested report", bench::report(5000));
  std::string bytes;
  bytes.resize(10'000'000, 'x');
  register_value("10 MB bytes", Bytes(std::move(bytes)));
  benchmark::RegisterBenchmark("echo, pure worker", bench_echo)->UseRealTime();
  benchmark::RegisterBenchmark("a small message, to a pure worker", bench_to_worker)->UseRealTime();
  benchmark::RegisterBenchmark("a small message, from a pure worker", bench_from_worker)->UseRealTime();
  benchmark::RegisterBenchmark("a ring: 16 bytes in and out", bench_ring_in_and_out, 16);
  benchmark::RegisterBenchmark("a ring: 64 KiB in and out", bench_ring_in_and_out, std::size_t{64} << 10);
  benchmark::RegisterBenchmark("a ring: 64 MiB between two threads", bench_ring_between_threads)->UseRealTime();
}

}  // namespace
}  // namespace execnet

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  execnet::register_all();
  benchmark::RunSpecifiedBenchmarks();
}
