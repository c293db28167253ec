#include "mutator.hpp"

#include <algorithm>
#include <array>
#include <execnet/dump.hpp>

#include "vectors.hpp"
namespace execnet::testing {
namespace {

using wire::FrameType;

constexpr std::size_t kLongest = 4096;  // bytes that a mutant may grow to
constexpr std::array<std::uint32_t, 12> kNumbers{0,     1,      2,        6,          0x7F,       0xFF,
                                                 0x100, 0xFFFF, 0x100000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF};

void put_number(std::string& text, std::size_t at, std::uint32_t number, bool big_endian) {
  for (std::size_t i = 0; i < 4 && at + i < text.size(); ++i) {
    text[at + i] = static_cast<char>(number >> (8 * (big_endian ? 3 - i : i)));
  }
}

}  // namespace

std::string Mutator::mutant(std::span<const std::string> seeds) {
  std::string text = seeds[below(seeds.size())];
  for (std::size_t changes = 1 + below(1 + below(4)); changes > 0; --changes) {
    change(text, seeds[below(seeds.size())]);
  }
  return text;
}

void Mutator::change(std::string& text, std::string_view other) {
  if (text.empty()) {
    text = other;
    return;
  }
  const std::size_t at = below(text.size());
  const std::size_t size = 1 + below(std::min<std::size_t>(text.size() - at, 64));
  switch (below(9)) {
    case 0: text[at] = static_cast<char>(text[at] ^ (1 << below(8))); break;
    case 1: text[at] = static_cast<char>(below(256)); break;
    case 2: text[at] = static_cast<char>('@' + below(24)); break;  // an opcode, or nearly
    case 3: put_number(text, at, kNumbers[below(kNumbers.size())], one_in(2)); break;
    case 4: text.erase(at, size); break;
    case 5: text.resize(at); break;
    case 6:
      if (text.size() + size <= kLongest) {
        text.insert(below(text.size()), text.substr(at, size));
      }
      break;
    case 7: text.insert(at, 1, static_cast<char>(below(256))); break;
    default:
      if (!other.empty()) {
        const std::size_t from = below(other.size());
        text.replace(at, size, other.substr(from, 1 + below(64)));
      }
      break;
  }
}

FrameMutator::FrameMutator(From from, std::uint64_t seed)
    : from_(from),
      mutator_(seed),
      flags_(dumps(Tuple{true, false}).substr(1)),
      window_(dumps(Value(1000)).substr(1)),
      text_(dumps("an error").substr(1)),
      request_(dumps(Tuple{"pass", Value(), 1, Value(), Dict{}}).substr(1)) {
  for (const std::string& dump : dumps_seeds()) {
    if (!dump.empty() && dump.size() <= kLongest) {
      payloads_.push_back(dump.substr(1));
    }
  }
  for (std::string& stream : frames_seeds()) {
    if (stream.size() <= kLongest) {
      streams_.push_back(std::move(stream));
    }
  }
}

FrameType FrameMutator::type() {
  static constexpr std::array kBothWays{FrameType::kData,        FrameType::kData,   FrameType::kData,
                                        FrameType::kClose,       FrameType::kLast,   FrameType::kCloseError,
                                        FrameType::kReconfigure, FrameType::kCredit, FrameType::kWindow};
  if (mutator_.one_in(40)) {
    return static_cast<FrameType>(1 + mutator_.below(10));
  }
  if (from_ == From::kCoordinator && mutator_.one_in(4)) {
    return mutator_.one_in(2) ? FrameType::kExec : FrameType::kStatus;
  }
  return kBothWays[mutator_.below(kBothWays.size())];
}

std::uint32_t FrameMutator::channel(FrameType type) {
  if (mutator_.one_in(200)) {
    return kNumbers[mutator_.below(kNumbers.size())];
  }
  switch (type) {
    case FrameType::kHello:
    case FrameType::kTerminate: return 0;
    case FrameType::kExec: return static_cast<std::uint32_t>(1 + 2 * mutator_.below(20));
    default: return static_cast<std::uint32_t>(1 + mutator_.below(12));
  }
}

std::string FrameMutator::payload(FrameType type) {
  const bool usual = !mutator_.one_in(40);
  switch (type) {
    case FrameType::kClose:
    case FrameType::kLast:
    case FrameType::kTerminate:
    case FrameType::kStatus:
    case FrameType::kCredit: return usual ? "" : "unexpected";
    case FrameType::kWindow: return usual ? window_ : mutator_.mutant(payloads_);
    case FrameType::kReconfigure: return usual ? flags_ : mutator_.mutant(payloads_);
    case FrameType::kCloseError: return usual ? text_ : mutator_.mutant(payloads_);
    case FrameType::kExec: return mutator_.one_in(2) ? request_ : mutator_.mutant(std::span(&request_, 1));
    default: return mutator_.mutant(payloads_);
  }
}

std::string FrameMutator::frame() {
  wire::FrameHeader header;
  header.type = type();
  header.channel = channel(header.type);
  // Most frames must have no credit, because bytes that were not sent cannot have been taken.
  header.credit =
      header.type == FrameType::kCredit && !mutator_.one_in(40) ? 0 : kNumbers[mutator_.below(kNumbers.size())];
  std::string content = payload(header.type);
  if (header.type == FrameType::kData && mutator_.one_in(6)) {
    header.flags = mutator_.one_in(3) ? wire::kAbort : wire::kMore;
    content.resize(header.flags == wire::kAbort ? 0 : content.size());
  }
  header.length = static_cast<std::uint32_t>(content.size());
  const auto packed = wire::pack(header);
  return std::string(packed.data(), packed.size()) + content;
}

std::string FrameMutator::stream() {
  if (mutator_.one_in(64)) {
    return mutator_.mutant(streams_);
  }
  std::string stream;
  for (std::size_t frames = 1 + mutator_.below(3); frames > 0; --frames) {
    stream += frame();
  }
  return mutator_.one_in(20) ? mutator_.mutant(std::span(&stream, 1)) : stream;
}

}  // namespace execnet::testing
