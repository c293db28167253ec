// Waiting awake for a moment, where that is shorter than to sleep and be woken: only where the other side can run at
// the same time, on a CPU of its own, and seldom while recent waits have been longer. One object for each place where
// is waited; one thread at a time.
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
    const auto begin = std::chrono::steady_clock::now();
    std::chrono::steady_clock::duration looked{0};
    do {
      for (int i = 0; i < kLooksAtOnce; ++i) {
        if (ready()) {
          came(looked > kWorthIt);
          return true;
        }
        relax();
      }
      looked = std::chrono::steady_clock::now() - begin;
    } while (looked < kLongest);
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
  // Longer than it takes to wake the other side: when both sleep, one of them must be able to begin.
  static constexpr std::chrono::microseconds kLongest{50};
  // To look for longer costs more than sleeping does. It is done for so many waits in a row, within which the other
  // side must have begun to look, too.
  static constexpr std::chrono::microseconds kWorthIt{20};
  static constexpr int kMostLate = 128;
  static constexpr int kRestsAfterLate = 1024;
  // A wait that would have been shorter without the sleep and the wake-up of either side.
  static constexpr std::chrono::microseconds kShort{150};
  static constexpr int kLooksAtOnce = 32;
  static constexpr int kTriesInVain = 3;
  static constexpr int kMostInVain = 7;  // the other side tries again within the 128 waits of kMostLate

  [[nodiscard]] static bool two_can_run();

  void came(bool late) {
    in_vain_ = 0;
    late_ = late ? late_ + 1 : 0;
    if (late_ == kMostLate) {
      late_ = 0;
      rests_ = kRestsAfterLate;
    }
  }

  int in_vain_ = 0;  // the last so many, in a row
  int late_ = 0;     // the same of those that came, but late
  int rests_ = 0;    // short waits until it is tried again
};

}  // namespace execnet::base
