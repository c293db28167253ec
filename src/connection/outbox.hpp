// Messages on their way out. They are cut into chunks and written in batches, and channels take turns.
//
// It does no I/O and has no lock: its connection guards it with its mutex, and lets one thread at a
// time write what gather() returned. Payloads are not moved between send() and the system call.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "base/buffer.hpp"
#include "base/rope.hpp"
#include "connection/trace.hpp"
#include "loop/waiter.hpp"
#include "wire/frame.hpp"

namespace execnet::core {

struct Outgoing {
  wire::FrameType type;
  std::uint32_t channel;
  base::Rope payload;
  std::uint32_t credit = 0;
  bool reply = false;                    // to a frame of the other side's
  bool urgent = false;                   // before all that are not, and of which nothing is cut; of no channel
  bool raw = false;                      // the payload is frames already: written as it is
  const loop::Waiter* sender = nullptr;  // the thread that waits until this is written, if one does
  std::size_t cut = 0;                   // bytes of the payload that have become pieces
  bool written = false;                  // all of it was handed to the operating system
};

class Outbox {
 public:
  // Tells it of the frames that go out from now on.
  void set_trace(const Trace* trace) { trace_ = trace; }

  [[nodiscard]] bool empty() const { return queue_.empty() && pieces_.empty(); }
  void push(std::shared_ptr<Outgoing> message) {
    if (message->urgent) {
      push_urgent(std::move(message));
    } else {
      queue_.push_back(std::move(message));
    }
  }

  // How messages become pieces. What is cut ahead cannot be taken back and delays other channels, so it is not much.
  struct Cut {
    std::size_t chunk = wire::kChunk;
    std::size_t ahead = wire::kChunk;  // another piece is cut while there are fewer bytes
  };

  // Fills `parts` with what to write next; returns how many were filled. They stay valid until
  // written() is called. REQUIRES: nothing gathered is unaccounted for.
  std::size_t gather(std::span<iovec> parts, Cut cut);
  std::size_t gather(std::span<iovec> parts) { return gather(parts, Cut{}); }
  // Appends the next frames, all of them whole, to `bytes` if they are so many bytes in all; false if they are not.
  // REQUIRES: as gather(), and !within_piece().
  bool copy_whole(base::Buffer& bytes, Cut cut, std::size_t least, std::size_t most);
  // Whether a part of a frame is written, and the rest of it is not.
  [[nodiscard]] bool within_piece() const { return offset_ != 0; }
  // Bytes that have ever become pieces.
  [[nodiscard]] std::uint64_t cut_ever() const { return cut_ever_; }
  // The first `count` bytes of what was gathered were written; the messages that this completed.
  std::vector<std::shared_ptr<Outgoing>> written(std::size_t count);

  // Takes a message back; false if it is too late. If a part of it has gone out, the other side is told to
  // forget that part.
  bool retract(const std::shared_ptr<Outgoing>& message);
  // Drops everything and returns it.
  std::vector<std::shared_ptr<Outgoing>> clear();

 private:
  // A frame, or the part of one that is not written yet.
  struct Piece {
    std::shared_ptr<Outgoing> message;
    std::array<char, wire::kHeaderSize> header;
    std::size_t header_size;  // 0 for raw bytes
    std::size_t begin;        // of the chunk in the payload
    std::size_t size;
    bool last;
  };

  void push_urgent(std::shared_ptr<Outgoing> message);
  void cut_next(std::size_t chunk);
  void tell(const Piece& piece, const wire::FrameHeader& header) const;
  void requeue(std::shared_ptr<Outgoing> message);

  std::deque<std::shared_ptr<Outgoing>> queue_;
  std::deque<Piece> pieces_;
  const Trace* trace_ = nullptr;
  std::size_t pieces_bytes_ = 0;
  std::uint64_t cut_ever_ = 0;
  std::size_t offset_ = 0;  // bytes of pieces_.front() already written
};

}  // namespace execnet::core
