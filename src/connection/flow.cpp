#include "connection/flow.hpp"

namespace execnet::core {

void Flow::set_ours(std::uint64_t window) {
  ours_ = window;
  choose();
}

void Flow::set_theirs(std::uint64_t window) {
  theirs_ = window;
  choose();
}

void Flow::choose() {
  window_ = ours_ || theirs_ ? std::min(ours_.value_or(kUnbounded), theirs_.value_or(kUnbounded)) : gateway_;
}

bool Flow::on_credit(std::uint32_t bytes) {
  if (bytes > outstanding()) {
    return false;
  }
  credited_ += bytes;
  return true;
}

bool Flow::on_arrived(std::size_t bytes) {
  const bool allowed = ours_ || theirs_ || admits(arrived_ - told_, bytes);
  arrived_ += bytes;
  return allowed;
}

std::uint32_t Flow::credit_due() {
  const std::uint64_t untold = taken_ - told_;
  if (window_ == kUnbounded || untold < share()) {
    return 0;
  }
  const auto told = std::min<std::uint64_t>(untold, std::numeric_limits<std::uint32_t>::max());
  told_ += told;
  return static_cast<std::uint32_t>(told);
}

}  // namespace execnet::core
