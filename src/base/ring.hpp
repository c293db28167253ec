// A byte stream in shared memory, in one direction: one producer, one consumer, in two processes that need not trust
// each other. No system calls: who finds it empty or full and wants to sleep says so, and the other side tells him by
// other means (connection/link.hpp).
//
// Each of the two ends has an object of its own over the same memory. An end is used by one thread at a time. It never
// reads back what it has written there, and believes of the other end's numbers only what can be true.
//
// The numbers are bytes ever written and ever read. Saying "I sleep" and looking once more are sequentially consistent
// with writing and looking whether the other sleeps: one of the two always sees the other. Now and then, if it is
// empty, the ring is begun anew at its start: what passes through little by little stays within few pages, and the
// cache.
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

  // Puts in as much as there is room for, and returns how much: 0 if that were less than `least`. Throws RingBroken.
  std::size_t write(std::span<const iovec> parts, std::size_t least = 1);
  // Whether the consumer sleeps and is to be woken, which the caller now does. To be asked after write().
  [[nodiscard]] bool takes_on_waking() {
    return header_->consumer_sleeps.load() != 0 && header_->consumer_sleeps.exchange(0) != 0;
  }
  // Whether the consumer has begun. To be asked after what it is to see.
  [[nodiscard]] bool is_read() const { return header_->consumer_reads.load() != 0; }
  // Says that the caller will sleep until there is room; false if there is some.
  [[nodiscard]] bool may_sleep();
  // Whether the consumer has woken it since. It rings the bell then, too, but that may be heard late.
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

  // The producer is told. What it would have told before is to be looked at after.
  void begin() { header_->consumer_reads.store(1); }
  // Takes out as much as there is and fits, and returns how much. Throws RingBroken.
  std::size_t read(std::span<char> space);
  // Whether there is something to read.
  [[nodiscard]] bool readable() const { return header_->written.load(std::memory_order_acquire) != read_; }
  // Whether the producer sleeps and is to be woken, which the caller now does. To be asked after read(). It is left
  // asleep until half of the ring is free.
  [[nodiscard]] bool takes_on_waking();
  // Says that the caller will sleep until there is something; false if there is.
  [[nodiscard]] bool may_sleep();
  // Takes that back: it is awake.
  void is_awake() { header_->consumer_sleeps.store(0, std::memory_order_relaxed); }

 private:
  RingHeader* header_;
  const char* data_;
  std::size_t capacity_;
  std::uint64_t read_ = 0;
};

}  // namespace execnet::base
