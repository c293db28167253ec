// Spinning for a moment before sleeping, where that takes less time than to sleep and be woken. It happens only where
// the other side can run at the same time, on a CPU of its own, and rarely while recent waits have been longer. There
// is one object for each place where threads wait; one thread at a time uses it.
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
  // Spins until `ready`, if that makes sense. Returns what `ready` says in the end.
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
  // The thread slept after all, and the wait took so long in total. After enough short waits spinning is tried again.
  void slept(std::chrono::steady_clock::duration duration) {
    if (rests_ != 0 && duration < kShort) {
      --rests_;
    }
  }

 private:
  // Longer than it takes to wake the other side. When both sides sleep, one of them must be able to start spinning.
  static constexpr std::chrono::microseconds kLongest{50};
  // Spinning for longer than this costs more than sleeping. It is still done for so many waits in a row; within these
  // the other side must have begun to spin, too.
  static constexpr std::chrono::microseconds kWorthIt{20};
  static constexpr int kMostLate = 128;
  static constexpr int kRestsAfterLate = 1024;
  // A wait up to this long would have been shorter if neither side had slept.
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

  int in_vain_ = 0;  // spins in a row that ended without success
  int late_ = 0;     // spins in a row that succeeded, but late
  int rests_ = 0;    // short waits until the next spin
};

}  // namespace execnet::base
