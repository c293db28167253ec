// The bytes of a connection: a stream socket and, where both ends are native and on one host, a pair of rings in memory
// that they share (base/ring.hpp). Then the socket is a doorbell, rung when the other side sleeps, and the sign of
// life: at its end, what is in the ring is still read.
//
//   coordinator  offer() before the first write: the memory goes with the first bytes that are written
//   worker       has_rings() once it has read those, and tells the coordinator so in its HELLO
//   each         sends the frame RINGS as the last on the socket, and from then on writes to its ring; on RINGS it
//                calls read_from_ring()
//
// Owner: its connection, which sees to it that one thread at a time reads, and one writes. A reader and a writer need
// not know of each other, but for the doorbell: it is the reader who hears that there is room again.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <optional>
#include <span>

#include "base/fd.hpp"
#include "base/ring.hpp"

namespace execnet::core {

// What a worker's HELLO has among its features if it has the rings.
inline constexpr const char* kRings = "rings";

class Link {
 public:
  explicit Link(base::Fd socket) : socket_(std::move(socket)) {}
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  // Readable when there is something to read, or to look at again, or the end; writable when the socket is.
  [[nodiscard]] int fd() const { return socket_.get(); }
  // Makes the stream end on both sides.
  void shut_down() const;

  // --- Agreeing on rings ---

  // Without memory or descriptors for rings, or where no file may be that large (`ulimit -f`), there are none: the
  // socket does as well.
  void offer();
  // Takes what the other side may offer with its first bytes. Before the first read.
  void expect_offer() { expects_offer_ = true; }
  // Whether there are rings that the other side has, too, or can have.
  [[nodiscard]] bool has_rings() const { return memory_ != nullptr; }
  // From now on. REQUIRES: has_rings(); the calling thread has the reading, or the writing. Who begins to read is to do
  // as if the bell had been rung.
  void read_from_ring();
  void write_to_ring() { writes_ring_ = true; }
  [[nodiscard]] bool reads_ring() const { return reads_ring_; }
  [[nodiscard]] bool writes_ring() const { return writes_ring_; }

  // --- Reading ---

  struct Got {
    std::size_t count = 0;
    bool ended = false;
    bool bell = false;  // the other side may have made room for a writer who waits for it
  };
  // Never waits. Throws base::RingBroken.
  Got read(std::span<char> space);
  // Whether there is something to read, without a system call: only ever true of a ring.
  [[nodiscard]] bool readable() const { return reads_ring_ && consumer_->readable(); }
  // To be asked before one sleeps until fd() is readable; false if there is something to read.
  [[nodiscard]] bool may_sleep_reading() { return !reads_ring_ || consumer_->may_sleep(); }
  // The doorbell need not be rung.
  void is_awake() {
    if (reads_ring_) {
      consumer_->is_awake();
    }
  }

  // --- Writing ---

  // How much was taken, 0 if there is no room; -1 if nothing can be written any more. Never waits.
  ssize_t write(std::span<const iovec> parts);
  // All of it, to the ring, or nothing: false if there is no room. REQUIRES: writes_ring().
  bool write_whole(std::span<const iovec> parts);
  // To be asked before one sleeps until there is room: for a ring, until read() tells of the bell; else until fd() is
  // writable. False if there is room.
  [[nodiscard]] bool may_sleep_writing() { return !writes_ring_ || producer_->may_sleep(); }
  // Whether a writer that sleeps until there is room in the ring is to wake up, though the bell was not read yet.
  [[nodiscard]] bool was_woken_to_write() const { return writes_ring_ && producer_->was_woken(); }

 private:
  // False, and there are no rings, if there is no room for them in the address space.
  bool map(const base::Fd& memory, bool coordinator);
  ssize_t write_ring(std::span<const iovec> parts, std::size_t least);
  Got read_socket(std::span<char> space);
  void take_offer(msghdr& message);
  void ring_the_bell();

  const base::Fd socket_;
  base::Fd to_give_;  // the memory, until it has gone out
  bool expects_offer_ = false;
  void* memory_ = nullptr;
  std::optional<base::RingProducer> producer_;
  std::optional<base::RingConsumer> consumer_;
  std::atomic<bool> reads_ring_{false};   // set by the reader, looked at by others
  std::atomic<bool> writes_ring_{false};  // the same of the writer
};

}  // namespace execnet::core
