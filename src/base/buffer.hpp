// A growable run of bytes that, unlike std::vector, leaves new bytes unset: what is received next
// overwrites them anyway. Move only; one owner at a time.
//
// What is large grows 16-fold, since memory that is not written to costs nothing, and moving it does. Where address
// space is scarce (`ulimit -v`) it grows by less, down to what is needed. Only without that it throws std::bad_alloc,
// whose what() says how many bytes were wanted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "base/huge_pages.hpp"

namespace execnet::base {

class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::string_view bytes) { append(bytes); }
  Buffer(Buffer&& other) noexcept
      : data_(std::move(other.data_)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
    capacity_ = std::exchange(other.capacity_, 0);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() = default;

  [[nodiscard]] char* data() { return data_.get(); }
  [[nodiscard]] const char* data() const { return data_.get(); }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] std::string_view view() const { return {data_.get(), size_}; }

  void clear() { size_ = 0; }
  void reserve(std::size_t capacity) {
    if (capacity > capacity_) {
      grow(capacity);
    }
  }
  // Makes room for `count` more bytes and returns where they go; they count as written.
  char* extend(std::size_t count) {
    if (capacity_ - size_ < count) {
      grow(size_ + count);
    }
    char* at = data_.get() + size_;
    size_ += count;
    return at;
  }
  void append(std::string_view bytes) {
    if (!bytes.empty()) {
      std::memcpy(extend(bytes.size()), bytes.data(), bytes.size());
    }
  }
  void push_back(char byte) { *extend(1) = byte; }
  // Gives back the room for more, if that is large.
  void trim();
  // Drops all but the first `size` bytes. REQUIRES: size <= this->size().
  void truncate(std::size_t size) { size_ = size; }

 private:
  struct Free {
    void operator()(char* data) const { std::free(data); }
  };

  // For the opcode or the like that follows something large, which would have to move for it.
  static constexpr std::size_t kSpare = 32;

  void grow(std::size_t needed) {
    const std::size_t capacity = needed > capacity_ * 2 ? needed + kSpare : capacity_ * 2;
    if (capacity < kLarge && resize_to(capacity)) {  // nearly always
      return;
    }
    grow_large(needed);
  }
  void grow_large(std::size_t needed);
  [[nodiscard]] bool resize_to(std::size_t capacity) {
    char* data = static_cast<char*>(std::realloc(data_.get(), capacity));
    if (data == nullptr) {
      return false;
    }
    static_cast<void>(data_.release());  // realloc has taken the old block.
    data_.reset(data);
    capacity_ = capacity;
    return true;
  }

  std::unique_ptr<char, Free> data_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace execnet::base
