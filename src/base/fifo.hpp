// A queue that costs nothing while it is empty: std::deque takes half a kilobyte for its first element and before.
// Elements are moved out at the front; memory is given back when the queue is cleared. One owner, no lock.
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

  void push_back(T item) {
    if (items_.size() == items_.capacity() && begin_ > items_.size() / 2) {
      close_up();
    }
    items_.push_back(std::move(item));
  }
  // REQUIRES: not empty.
  void pop_front() {
    items_[begin_] = T();
    if (++begin_ == items_.size()) {
      items_.clear();
      begin_ = 0;
      if (items_.capacity() > kKept) {
        items_.shrink_to_fit();
      }
    }
  }
  void clear() {
    items_ = std::vector<T>();
    begin_ = 0;
  }

 private:
  static constexpr std::size_t kKept = 64;

  // More than half of it is free: moving the rest costs less than what was taken out.
  void close_up() {
    items_.erase(items_.begin(), begin());
    begin_ = 0;
  }

  std::vector<T> items_;
  std::size_t begin_ = 0;  // of those that are still in
};

}  // namespace execnet::base
