// What the other side may have kept here at most. It bounds a peer that does not stop, not an honest one: the limits
// that hold without `limits=` in the specification are sizes that no program meets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>

namespace execnet::core {

struct Limits {
  static constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();

  // Of items that the program has not received, messages that are not complete, and error texts. Each item counts 64
  // bytes more than it has.
  std::uint64_t bytes = kUnlimited;
  // Channels that the other side has made and the program has no handle for, and answers that it does not read.
  std::uint64_t channels = kUnlimited;
  // Messages of which only a part has come.
  std::uint64_t messages = kUnlimited;

  // Half of the machine's memory, a million channels, 100,000 messages.
  static Limits of_this_machine();
};

}  // namespace execnet::core
