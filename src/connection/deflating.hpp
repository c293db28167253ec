// The compressed part of what a connection writes: batches of whole frames as DEFLATED frames, where that pays.
//
//   what waits in the Outbox -> a unit -> the socket
//
// The frames of a unit stay in the outbox until all of the unit is written. Nothing waits for a unit to become larger,
// and what is small goes out as it is.
//
// Owner: Writing, of a connection whose transport asks for it and whose other side can inflate; others have none.
// Guarded by the connection's mutex, but for write(), which is for the thread that has the writing.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/buffer.hpp"
#include "connection/link.hpp"
#include "connection/outbox.hpp"
#include "connection/pace.hpp"
#include "connection/trace.hpp"
#include "wire/deflate.hpp"

namespace execnet::core {

// What a worker's HELLO has among its features if it can inflate, and the coordinator has offered to.
inline constexpr const char* kDeflate = "deflate";

class Deflating {
 public:
  // Takes what is to be written next out of the outbox. True: it is a unit, or the rest of one, and to be written by
  // write(). Else the outbox is to be asked, with cut().
  bool prepare(Outbox& outbox);
  [[nodiscard]] Outbox::Cut cut() const;
  // What was cut by that goes out as it is.
  void on_gathered(const Outbox& outbox);

  // As Link::write(). Without the mutex.
  ssize_t write(Link& link, const Trace* trace);
  // After that: what the unit has made complete, once it is written.
  std::vector<std::shared_ptr<Outgoing>> written(Outbox& outbox);
  // What is not written yet never will be.
  void drop();

  // The other side has a probe. Throws ProtocolError.
  void passed(std::uint32_t number) { pace_.passed(number, base::Clock::now()); }

 private:
  void deflate(const Trace* trace);

  Pace pace_;
  std::optional<wire::Deflater> deflater_;
  std::uint64_t told_ = 0;   // of what the outbox has cut, to pace_
  int level_ = 0;            // of the unit
  base::Buffer frames_;      // that are to become one
  std::size_t covered_ = 0;  // their size; 0: there is no unit
  base::Buffer unit_;        // with its header; empty until it is made
  std::size_t at_ = 0;       // so much of it is written
};

}  // namespace execnet::core
