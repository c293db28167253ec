// Makes allocations of this process fail, for the C++ tests: `operator new` is replaced for all of them.
#pragma once

namespace execnet::testing {

// While it lives, the `first` allocation from now on fails, counted from 1, and so do those after it, `count` in all.
// Of all threads. One at a time.
class ScarceMemory {
 public:
  static constexpr long kAll = 1'000'000'000;

  ScarceMemory(long first, long count);
  ~ScarceMemory();
  ScarceMemory(const ScarceMemory&) = delete;
  ScarceMemory& operator=(const ScarceMemory&) = delete;

  // So many that were asked for, and so many of them that failed.
  [[nodiscard]] static long asked();
  [[nodiscard]] static long failed();
  // False under a sanitizer, whose `operator new` stays.
  static bool is_possible();
};

}  // namespace execnet::testing
