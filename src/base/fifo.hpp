// A queue that takes no memory before its first element: std::deque takes half a kilobyte, and channels are many. An
// element is moved out of it. One owner, no lock.
#pragma once

#include <cstddef>
#include <utility>
#include <vector>

namespace execnet::base {

template <typename T>
class Fifo {
 public:
  [[nodiscard]] bool empty() const { return begin_ == items_.size(); }
  [[nodiscard]] std::size_t size() const { return items_.size() - begin_; }
  [[nodiscard]] T& front() { return items_[begin_]; }
  [[nodiscard]] const T& front() const { return items_[begin_]; }
  [[nodiscard]] auto begin() { return items_.begin() + static_cast<std::ptrdiff_t>(begin_); }
  [[nodiscard]] auto end() { return items_.end(); }
  [[nodiscard]] auto begin() const { return items_.begin() + static_cast<std::ptrdiff_t>(begin_); }
  [[nodiscard]] auto end() const { return items_.end(); }

  void push_back(T&& item) {
    if (begin_ != 0 && items_.size() == items_.capacity() && begin_ > items_.size() / 2) {
      close_up();
    }
    items_.push_back(std::move(item));
  }
  // Takes the first one out. REQUIRES: not empty.
  T take_front() {
    T item = std::move(items_[begin_]);
    if (++begin_ == items_.size()) {
      items_.clear();
      begin_ = 0;
      if (items_.capacity() > kKept) {
        items_.shrink_to_fit();
      }
    }
    return item;
  }
  void clear() {
    items_ = std::vector<T>();
    begin_ = 0;
  }

 private:
  static constexpr std::size_t kKept = 256;

  // More than half of it is free: moving the rest costs less than what was taken out.
  void close_up() {
    items_.erase(items_.begin(), begin());
    begin_ = 0;
  }

  std::vector<T> items_;
  std::size_t begin_ = 0;  // of those that are still in
};

}  // namespace execnet::base
