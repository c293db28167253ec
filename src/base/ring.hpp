// A byte stream in shared memory, in one direction, from one producer to one consumer. They are in two processes that
// need not trust each other. There are no system calls: an end that finds the ring empty or full and wants to sleep
// says so in the header, and the other end wakes it by other means (connection/link.hpp).
//
// Each of the two ends has an object of its own over the same memory. An end is used by one thread at a time. It never
// reads back what it has written, and refuses numbers of the other end that cannot be true.
//
// The numbers count the bytes ever written and ever read. Saying "I sleep" and then looking once more is sequentially
// consistent with writing and then looking whether the other end sleeps: one of the two always sees the other. Now and
// then, when the ring is empty, the producer starts again at its beginning. So a trickle of small messages stays within
// few pages, and in the cache.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>

namespace execnet::base {

// The other end has written numbers that cannot be.
class RingBroken : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// What both ends see; all zeros is an empty ring. Each part has its cache line.
struct RingHeader {
  alignas(64) std::atomic<std::uint64_t> written{0};          // by the producer
  std::atomic<std::uint64_t> origin{0};                       // by the producer: this byte is at the start of the data
  alignas(64) std::atomic<std::uint64_t> read{0};             // by the consumer
  alignas(64) std::atomic<std::uint32_t> consumer_sleeps{0};  // set by the consumer, taken by the producer
  std::atomic<std::uint32_t> consumer_reads{0};               // set by the consumer, once
  alignas(64) std::atomic<std::uint32_t> producer_sleeps{0};  // set by the producer, taken by the consumer
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && sizeof(RingHeader) == 256);

class RingProducer {
 public:
  // REQUIRES of both ends: `capacity` is a power of two, and `data` that long.
  RingProducer(RingHeader* header, char* data, std::size_t capacity)
      : header_(header), data_(data), capacity_(capacity) {}

  // Puts in as much as there is room for and returns how much; 0 if that would be less than `least`. Throws RingBroken.
  std::size_t write(std::span<const iovec> parts, std::size_t least = 1);
  // Whether the consumer sleeps. If so, the caller must now wake it. Call it after write().
  [[nodiscard]] bool takes_on_waking() {
    return header_->consumer_sleeps.load() != 0 && header_->consumer_sleeps.exchange(0) != 0;
  }
  // Whether the consumer has begun. Call it after writing what the consumer is to see.
  [[nodiscard]] bool is_read() const { return header_->consumer_reads.load() != 0; }
  // Says that the caller will sleep until there is room; false if there is some.
  [[nodiscard]] bool may_sleep();
  // Whether the consumer has cleared that since. It also rings the bell, which may be heard late.
  [[nodiscard]] bool was_woken() const { return header_->producer_sleeps.load(std::memory_order_relaxed) == 0; }

 private:
  [[nodiscard]] std::size_t room();

  RingHeader* header_;
  char* data_;
  std::size_t capacity_;
  std::uint64_t written_ = 0;
  std::uint64_t read_ = 0;  // as last seen
  std::uint64_t origin_ = 0;
};

class RingConsumer {
 public:
  RingConsumer(RingHeader* header, const char* data, std::size_t capacity)
      : header_(header), data_(data), capacity_(capacity) {}

  // Tells the producer that this end reads now. The caller must then look at the ring once: the producer has not rung
  // for what it wrote before.
  void begin() { header_->consumer_reads.store(1); }
  // Takes out as much as there is and fits, and returns how much. Throws RingBroken.
  std::size_t read(std::span<char> space);
  // Whether there is something to read.
  [[nodiscard]] bool readable() const { return header_->written.load(std::memory_order_acquire) != read_; }
  // Whether the producer sleeps. If so, the caller must now wake it. Call it after read(). The producer is left
  // asleep until half of the ring is free.
  [[nodiscard]] bool takes_on_waking();
  // Says that the caller will sleep until there is something; false if there is.
  [[nodiscard]] bool may_sleep();
  // Takes that back: this end is awake.
  void is_awake() { header_->consumer_sleeps.store(0, std::memory_order_relaxed); }

 private:
  RingHeader* header_;
  const char* data_;
  std::size_t capacity_;
  std::uint64_t read_ = 0;
};

}  // namespace execnet::base
