// Makes wrong inputs out of right ones. The same seed gives the same inputs on any machine, so a
// finding can be reproduced. Owned and used by one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "wire/frame.hpp"

namespace execnet::testing {

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  // One of 0 ... count - 1.
  std::size_t below(std::size_t count) { return random_() % count; }
  bool one_in(std::size_t count) { return below(count) == 0; }
  // One of the seeds with one to four changes: bits, bytes, lengths, pieces taken out, doubled or exchanged
  // with another seed's, the end cut off.
  std::string mutant(std::span<const std::string> seeds);

 private:
  void change(std::string& text, std::string_view other);

  std::mt19937_64 random_;
};

// Streams of one to three frames of a hostile peer: mostly well formed, so that they also get past the frame
// reader.
class FrameMutator {
 public:
  enum class From : std::uint8_t { kCoordinator, kWorker };

  FrameMutator(From from, std::uint64_t seed);

  std::string stream();
  Mutator& mutator() { return mutator_; }

 private:
  std::string frame();
  wire::FrameType type();
  std::uint32_t channel(wire::FrameType type);
  std::string payload(wire::FrameType type);

  const From from_;
  Mutator mutator_;
  std::vector<std::string> payloads_;  // encoded values, good and bad
  std::vector<std::string> streams_;
  const std::string flags_, window_, text_, request_;  // what RECONFIGURE, WINDOW, CLOSE_ERROR and EXEC carry
};

}  // namespace execnet::testing
