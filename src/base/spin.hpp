// Waiting awake for a moment, where that is shorter than to sleep and be woken: only where the other side can run at
// the same time, on a CPU of its own, and only as long as recent waits have been that short. One object for each place
// where is waited; one thread at a time.
#pragma once

#include <algorithm>
#include <chrono>

namespace execnet::base {

// Tells the CPU that it spins.
inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

class Spin {
 public:
  // Waits for `ready`, if it makes sense; what that says in the end.
  template <typename Ready>
  bool until(const Ready& ready) {
    if (ready()) {
      return true;
    }
    if (rests_ != 0 || !two_can_run()) {
      return false;
    }
    const auto end = std::chrono::steady_clock::now() + kLongest;
    do {
      for (int i = 0; i < kLooksAtOnce; ++i) {
        if (ready()) {
          in_vain_ = 0;
          return true;
        }
        relax();
      }
    } while (std::chrono::steady_clock::now() < end);
    in_vain_ = std::min(in_vain_ + 1, kMostInVain);
    if (in_vain_ >= kTriesInVain) {
      rests_ = 1 << in_vain_;
    }
    return false;
  }
  // The wait went on asleep, and took so long in all. So many short ones as it has to rest for, and it is tried again.
  void slept(std::chrono::steady_clock::duration duration) {
    if (rests_ != 0 && duration < kShort) {
      --rests_;
    }
  }

 private:
  static constexpr std::chrono::microseconds kLongest{20};
  // A wait that would have been shorter without the sleep and the wake-up.
  static constexpr std::chrono::microseconds kShort{60};
  static constexpr int kLooksAtOnce = 32;
  static constexpr int kTriesInVain = 3;
  static constexpr int kMostInVain = 12;

  [[nodiscard]] static bool two_can_run();

  int in_vain_ = 0;  // the last so many, in a row
  int rests_ = 0;    // short waits until it is tried again
};

}  // namespace execnet::base
