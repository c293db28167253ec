#include "base/buffer.hpp"

#include <sys/mman.h>

#include <array>
#include <cstdio>
#include <new>

#include "base/huge_pages.hpp"

namespace execnet::base {
namespace {

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

// Whether there is so much more. realloc(3) is asked for what there is only: where it finds no room, glibc goes on to
// look in arenas that it makes for that, and keeps 64 MiB of address space for each.
bool is_there(std::size_t bytes) {
  void* const found = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (found == MAP_FAILED) {
    return false;
  }
  ::munmap(found, bytes);
  return true;
}

}  // namespace

void Buffer::grow_large(std::size_t needed) {
  const std::size_t exactly = needed + kSpare;
  for (std::size_t step = capacity_ >= kLarge ? kLargeStep : kStep; step > 1; step /= 2) {
    if (capacity_ * step >= needed && is_there(capacity_ * (step - 1)) && resize_to(capacity_ * step)) {
      want_huge_pages(data_.get(), capacity_);
      return;
    }
  }
  if (!resize_to(exactly)) {
    throw NoMemory(needed);
  }
  want_huge_pages(data_.get(), capacity_);
}

void Buffer::trim() {
  if (capacity_ >= kLarge && capacity_ - size_ >= kLarge) {
    if (resize_to(size_ + kSpare)) {  // it may have moved
      want_huge_pages(data_.get(), capacity_);
    }
  }
}

}  // namespace execnet::base
