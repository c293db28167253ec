#include "connection/frame_reader.hpp"

#include <algorithm>
#include <array>
#include <exception>
#include <utility>

#include "base/printable.hpp"

namespace execnet::core {
namespace {

constexpr std::size_t kMostNoise = std::size_t{64} * 1024;
constexpr std::size_t kNoiseShown = 400;
constexpr std::size_t kMostInflated = std::size_t{1} << 20;  // by one read; about

}  // namespace

Incoming FrameReader::read() {
  Incoming incoming;
  try {
    if (noise_) {
      std::array<char, 4096> bytes;
      look_for_magic({bytes.data(), receive_into(bytes, incoming)}, incoming);
    } else if (more_) {
      parse(incoming);
    } else {
      parser_.received(receive_into(parser_.space(), incoming));
      parse(incoming);
    }
  } catch (const std::exception& error) {
    incoming.ended = true;
    incoming.error = error.what();
  }
  return incoming;
}

std::size_t FrameReader::receive_into(std::span<char> space, Incoming& incoming) {
  const Link::Got got = link_.read(space);
  incoming.bell = got.bell;
  incoming.ended = got.ended;
  if (got.ended && parser_.within_frame()) {
    incoming.error = "the stream ended in the middle of a frame";
  }
  return got.count;
}

void FrameReader::parse(Incoming& incoming) {
  std::size_t inflated = 0;
  more_ = false;
  while (auto frame = parser_.next(&assembler_)) {
    if (frame->header.type != wire::FrameType::kDeflated) {
      take(std::move(*frame), incoming);
      continue;
    }
    inflated += frame->header.credit;
    inflate(std::move(*frame), incoming);
    if (inflated >= kMostInflated) {
      more_ = true;
      break;
    }
  }
  incoming.unfinished = assembler_.count();
  incoming.unfinished_bytes = assembler_.pending();
}

void FrameReader::take(wire::Frame&& frame, Incoming& incoming) {
  if (const Trace* const trace = trace_) {
    trace->received(frame.header, frame.earlier == 0 ? frame.payload.view() : std::string_view());
  }
  if (auto message = assembler_.add(std::move(frame))) {
    incoming.messages.push_back(std::move(*message));
  }
}

void FrameReader::inflate(wire::Frame&& unit, Incoming& incoming) {
  if (!expects_deflated_) {
    throw wire::ProtocolError("a DEFLATED frame came, which was not agreed on");
  }
  if (!units_) {
    units_ = std::make_unique<Units>();
  }
  wire::FrameParser& parser = units_->parser;
  units_->inflater.begin(std::move(unit.payload), unit.header.credit);
  while (const std::size_t count = units_->inflater.read(parser.space())) {
    parser.received(count);
    while (auto frame = parser.next(&assembler_)) {
      if (frame->header.type == wire::FrameType::kDeflated || frame->header.type == wire::FrameType::kRings) {
        throw wire::ProtocolError("a " + std::string(wire::name(frame->header.type)) + " frame within a DEFLATED one");
      }
      take(std::move(*frame), incoming);
    }
  }
  if (parser.within_frame()) {
    throw wire::ProtocolError("a DEFLATED frame that ends within a frame");
  }
  if (const Trace* const trace = trace_) {  // the sender, too, knows of it when its frames are known
    trace->received(unit.header, {});
  }
}

void FrameReader::look_for_magic(std::string_view bytes, Incoming& incoming) {
  noise_->append(bytes);
  const std::size_t at = noise_->find(wire::kMagic);
  if (at == std::string::npos) {
    if (noise_->size() > kMostNoise || (incoming.ended && !noise_->empty())) {
      throw wire::ProtocolError("no worker, but this on its stdout: " +
                                base::printable(noise_->substr(0, kNoiseShown)));
    }
    return;
  }
  std::string_view rest = std::string_view(*noise_).substr(at + wire::kMagic.size());
  while (!rest.empty()) {
    const std::span<char> space = parser_.space();
    const std::size_t size = std::min(space.size(), rest.size());
    std::copy_n(rest.begin(), size, space.begin());
    rest.remove_prefix(size);
    parser_.received(size);
    do {
      parse(incoming);
    } while (more_);
  }
  noise_.reset();
}

}  // namespace execnet::core
