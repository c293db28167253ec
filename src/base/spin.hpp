// Waiting awake for a moment, where that is shorter than to sleep and be woken: only where the other side can run at the
// same time, on a CPU of its own, and only as long as recent waits have been that short. One object for each place
// where is waited; one thread at a time.
#pragma once

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
    if (!worth_it()) {
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
    ++in_vain_;
    return false;
  }
  // A wait that was not tried, or tried in vain, took so long in the end.
  void slept(std::chrono::steady_clock::duration duration) {
    if (duration < kLongest) {
      in_vain_ = 0;
    }
  }

 private:
  // What a sleep and a wake-up cost, several times over.
  static constexpr std::chrono::microseconds kLongest{50};
  static constexpr int kLooksAtOnce = 32;
  static constexpr int kTriesInVain = 4;

  [[nodiscard]] bool worth_it() const;

  int in_vain_ = 0;  // the last so many
};

}  // namespace execnet::base
