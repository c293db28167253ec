#include "base/buffer.hpp"

#include <array>
#include <cstdio>
#include <new>

#include "base/huge_pages.hpp"

namespace execnet::base {
namespace {

// For the opcode or the like that follows something large, which would have to move for it.
constexpr std::size_t kSpare = 32;
constexpr std::size_t kLargeStep = 16;
constexpr std::size_t kStep = 2;

class NoMemory final : public std::bad_alloc {
 public:
  explicit NoMemory(std::size_t bytes) {
    static_cast<void>(std::snprintf(text_.data(), text_.size(), "there is no memory for %zu bytes", bytes));
  }
  [[nodiscard]] const char* what() const noexcept override { return text_.data(); }

 private:
  std::array<char, 64> text_;  // no memory is needed for it
};

}  // namespace

void Buffer::grow(std::size_t needed) {
  const std::size_t exactly = needed + kSpare;
  for (std::size_t step = capacity_ >= kLarge ? kLargeStep : kStep; step > 1; step /= 2) {
    if (capacity_ * step >= needed && resize_to(capacity_ * step)) {
      return;
    }
  }
  if (!resize_to(exactly)) {
    throw NoMemory(needed);
  }
}

void Buffer::trim() {
  if (capacity_ >= kLarge && capacity_ - size_ >= kLarge) {
    static_cast<void>(resize_to(size_ + kSpare));
  }
}

bool Buffer::resize_to(std::size_t capacity) {
  char* data = static_cast<char*>(std::realloc(data_.get(), capacity));
  if (data == nullptr) {
    return false;
  }
  static_cast<void>(data_.release());  // realloc has taken the old block.
  data_.reset(data);
  capacity_ = capacity;
  if (capacity >= kLarge) {  // also when it has been trimmed: it may have moved
    want_huge_pages(data, capacity);
  }
  return true;
}

}  // namespace execnet::base
