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

}  // namespace

Incoming FrameReader::read() {
  Incoming incoming;
  try {
    if (noise_) {
      std::array<char, 4096> bytes;
      look_for_magic({bytes.data(), receive_into(bytes, incoming)}, incoming);
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
  const Trace* const trace = trace_;
  while (auto frame = parser_.next(&assembler_)) {
    if (trace != nullptr) {
      trace->received(frame->header, frame->earlier == 0 ? frame->payload.view() : std::string_view());
    }
    if (auto message = assembler_.add(std::move(*frame))) {
      incoming.messages.push_back(std::move(*message));
    }
  }
  incoming.unfinished = assembler_.count();
  incoming.unfinished_bytes = assembler_.pending();
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
    parse(incoming);
  }
  noise_.reset();
}

}  // namespace execnet::core
