// Bytes to be written: most of them in one buffer, and large ones where they already are, lent by their owner.
// Lent bytes do not change or move until the rope releases their owner. The rope does so when it is destroyed, on any
// thread and with any lock held, so the owner must tolerate that.
//
// Move only; used by one thread at a time.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "base/buffer.hpp"

namespace execnet::base {

class Rope {
 public:
  // Fewer bytes are cheaper to copy.
  static constexpr std::size_t kWorthLending = std::size_t{64} << 10;

  Rope() = default;
  Rope(Buffer bytes) : own_(std::move(bytes)) {}  // NOLINT: a rope of nothing else

  [[nodiscard]] std::size_t size() const { return own_.size() + lent_size_; }
  // The rope's own bytes. Bytes that are appended here come after everything in the rope, lent bytes included. They may
  // be truncated, but not beyond the last lent bytes.
  [[nodiscard]] Buffer& own() { return own_; }
  [[nodiscard]] bool is_plain() const { return lent_.empty(); }
  // All of it. REQUIRES: is_plain().
  [[nodiscard]] std::string_view view() const { return own_.view(); }

  void lend(std::string_view bytes, std::shared_ptr<const void> owner) {
    lent_.push_back({own_.size(), bytes, std::move(owner)});
    lent_size_ += bytes.size();
  }

  // Calls each(std::string_view) for the runs of bytes from `begin` on, `size` in all, in order.
  // REQUIRES: begin + size <= this->size().
  template <typename Each>
  void runs(std::size_t begin, std::size_t size, Each&& each) const {
    std::size_t skip = begin;
    std::size_t left = size;
    const auto run = [&](std::string_view bytes) {
      if (skip >= bytes.size()) {
        skip -= bytes.size();
        return;
      }
      const std::string_view wanted = bytes.substr(skip, left);
      skip = 0;
      left -= wanted.size();
      if (!wanted.empty()) {
        each(wanted);
      }
    };
    std::size_t done = 0;  // of its own
    for (const Lent& lent : lent_) {
      run(own_.view().substr(done, lent.at - done));
      run(lent.bytes);
      done = lent.at;
      if (left == 0) {
        return;
      }
    }
    run(own_.view().substr(done));
  }

  void copy_to(char* at) const {
    runs(0, size(), [&](std::string_view bytes) {
      std::memcpy(at, bytes.data(), bytes.size());
      at += bytes.size();
    });
  }

 private:
  struct Lent {
    std::size_t at;  // so many of the rope's own bytes come before
    std::string_view bytes;
    std::shared_ptr<const void> owner;
  };

  Buffer own_;
  std::vector<Lent> lent_;
  std::size_t lent_size_ = 0;
};

}  // namespace execnet::base
