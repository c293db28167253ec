// Bytes as a stream of frames: a ProtocolError or messages, the same ones however the stream is cut,
// and never more memory than the input has.
#include <algorithm>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "target.hpp"
#include "wire/deflate.hpp"
#include "wire/frame.hpp"

namespace execnet::fuzz {
namespace {

struct Seen {
  wire::FrameType type;
  std::uint32_t channel;
  std::string payload;
  bool operator==(const Seen&) const = default;
};

struct Outcome {
  std::vector<Seen> messages;
  std::string error;
  bool operator==(const Outcome&) const = default;
};

void take_frame(wire::Frame&& frame, wire::MessageAssembler& assembler, Outcome& outcome) {
  require(frame.payload.size() - frame.earlier == frame.header.length, "a frame is as long as its header says");
  if (auto message = assembler.add(std::move(frame))) {
    outcome.messages.push_back({message->type, message->channel, std::string(message->payload.view())});
  }
}

// The units of a stream.
struct Units {
  wire::Inflater inflater;
  wire::FrameParser parser;

  // How many bytes it has become.
  std::size_t take(wire::Frame&& unit, wire::MessageAssembler& assembler, bool in_place, Outcome& outcome) {
    const std::size_t size = unit.header.credit;
    require(size <= wire::kMaxInflated, "a unit does not become more than is allowed");
    std::size_t inflated = 0;
    inflater.begin(std::move(unit.payload), size);
    while (const std::size_t count = inflater.read(parser.space())) {
      inflated += count;
      require(inflated <= size, "a unit does not become more than it says");
      parser.received(count);
      while (auto frame = parser.next(in_place ? &assembler : nullptr)) {
        if (frame->header.type == wire::FrameType::kDeflated) {
          throw wire::ProtocolError("a unit within a unit");
        }
        take_frame(std::move(*frame), assembler, outcome);
      }
    }
    require(inflated == size, "a unit becomes what it says");
    if (parser.within_frame()) {
      throw wire::ProtocolError("a unit that ends within a frame");
    }
    return inflated;
  }
};

// With `in_place`, large chunks are read directly behind the chunks before them.
void take_frames(wire::FrameParser& parser, wire::MessageAssembler& assembler, Units& units, bool in_place,
                 std::size_t& received, Outcome& outcome) {
  while (auto frame = parser.next(in_place ? &assembler : nullptr)) {
    if (frame->header.type == wire::FrameType::kDeflated) {
      received += units.take(std::move(*frame), assembler, in_place, outcome);
    } else {
      take_frame(std::move(*frame), assembler, outcome);
    }
    require(assembler.pending() <= received, "no more is kept than came");
  }
}

// `next_cut` gives the size of the next piece.
template <typename NextCut>
Outcome read(std::string_view stream, bool in_place, NextCut next_cut) {
  wire::FrameParser parser;
  wire::MessageAssembler assembler;
  Units units;
  std::size_t received = 0;  // those that units have become included
  Outcome outcome;
  try {
    for (std::size_t at = 0; at < stream.size();) {
      const std::span<char> space = parser.space();
      require(!space.empty(), "there is always room to read to");
      require(space.size() <= wire::kMaxFramePayload, "the room is for one frame at most");
      const std::size_t count = std::min({next_cut(), space.size(), stream.size() - at});
      std::memcpy(space.data(), stream.data() + at, count);
      parser.received(count);
      at += count;
      received += count;
      take_frames(parser, assembler, units, in_place, received, outcome);
    }
  } catch (const wire::ProtocolError& error) {
    outcome.error = error.what();
  }
  return outcome;
}

}  // namespace
}  // namespace execnet::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace execnet::fuzz;
  const std::string_view stream = text_of(data, size);
  std::minstd_rand random(static_cast<unsigned>(std::hash<std::string_view>{}(stream)));
  const Outcome whole = read(stream, false, [&] { return stream.size(); });
  require(whole == read(stream, true, [&] { return stream.size(); }), "where it is read to makes no difference");
  require(whole == read(stream, true, [&] { return 1 + random() % 40; }), "small pieces make no difference");
  require(whole == read(stream, false, [&] { return 1 + random() % 30'000; }), "large pieces make no difference");
  return 0;
}
