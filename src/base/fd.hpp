// An owned file descriptor. Closes on destruction; move only. Any thread, one owner at a time.
#pragma once

#include <cstddef>
#include <utility>

namespace execnet::base {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset(std::exchange(other.fd_, -1));
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  [[nodiscard]] int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1) noexcept;

 private:
  int fd_ = -1;
};

// Before so many descriptors are opened, one after the other. The kernel's table of them grows by doubling, and each
// time a process with more than one thread waits until all processors have been elsewhere: 5 to 20 ms, in which nobody
// opens anything. After this it has grown, once, and without waiting if there is no other thread yet. Not beyond
// RLIMIT_NOFILE.
void expect_descriptors(std::size_t count);

}  // namespace execnet::base
