// Parts of a stream of frames, compressed: what DEFLATED frames carry (docs/wire_format.md). All units of one direction
// are one stream of raw deflate, so that what was in the units before is not said again.
//
// One thread at a time uses a Deflater, or an Inflater.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "base/buffer.hpp"

struct z_stream_s;  // NOLINT(readability-identifier-naming): zlib's name

namespace execnet::wire {

class Deflater {
 public:
  static constexpr int kFast = 1;
  static constexpr int kGood = 6;

  // Throws std::bad_alloc, as what follows.
  Deflater();
  // Appends to `unit` what becomes those bytes again. Of what throws nothing more may be asked.
  void deflate(std::string_view bytes, int level, base::Buffer& unit);

 private:
  struct End {
    void operator()(z_stream_s* stream) const;
  };

  std::unique_ptr<z_stream_s, End> stream_;
  int level_ = kFast;
};

// No more is made of a unit than was asked for at a time, and none that becomes more than it has said is read on.
//
//   inflater.begin(payload, size);
//   while (const std::size_t count = inflater.read(space)) { ... }
class Inflater {
 public:
  // Throws std::bad_alloc.
  Inflater();
  // A unit that is to become so many bytes. REQUIRES: read() has told of the end of the one before.
  void begin(base::Buffer unit, std::size_t size);
  // How many bytes were put to the start of `space`, which is not empty; 0: that was the end of the unit. Throws
  // ProtocolError.
  std::size_t read(std::span<char> space);

 private:
  struct End {
    void operator()(z_stream_s* stream) const;
  };

  std::unique_ptr<z_stream_s, End> stream_;
  base::Buffer unit_;
  std::size_t left_ = 0;  // bytes that it is still to become
};

}  // namespace execnet::wire
