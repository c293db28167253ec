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

// Whether this program has that standard descriptor. All of ours are close-on-exec, so one that is was opened by
// us, or somebody like us, where the program had none.
bool has_standard(int fd);

// Call it before opening so many descriptors one after the other. The kernel's table of descriptors grows by doubling.
// Each time, a process with more than one thread waits 5 to 20 ms for all processors to pass a quiet state, and no
// thread can open anything meanwhile: an eighth of the start of 1,000 gateways. This call makes the table grow once,
// without waiting if there is no other thread yet, and not beyond RLIMIT_NOFILE.
void expect_descriptors(std::size_t count);

}  // namespace execnet::base
