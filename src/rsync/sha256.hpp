// SHA-256. Any thread may call these functions; a Sha256 has one owner at a time.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace execnet::core {

using Digest = std::array<char, 32>;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void update(std::string_view bytes);
  // Once, at the end.
  [[nodiscard]] Digest digest();

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace execnet::core
