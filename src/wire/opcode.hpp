// The table of the dump format: docs/wire_format.md says what each does. worker/execnet_worker/values.py has the same.
#pragma once

#include <cstddef>
#include <cstdint>

namespace execnet::wire {

enum class Op : std::uint8_t {
  kBuildTuple = '@',
  kBytes = 'A',
  kChannel = 'B',
  kFalse = 'C',
  kFloat = 'D',
  kFrozenSet = 'E',
  kInt = 'F',
  kLong = 'G',
  kLongInt = 'H',
  kLongLong = 'I',
  kNewDict = 'J',
  kNewList = 'K',
  kNone = 'L',
  kPy2String = 'M',
  kPy3String = 'N',
  kSet = 'O',
  kSetItem = 'P',
  kStop = 'Q',
  kTrue = 'R',
  kUnicode = 'S',
  kComplex = 'T',
  kBytes8 = 'U',
  kString8 = 'V',
};

inline constexpr char kDumpVersion = 2;

// How deep containers may be nested, on writing and on reading. Destroying a value recurses.
inline constexpr std::size_t kMaxDepth = 1000;

// The longest integer, in decimal digits. Converting digits into an integer takes more than linear
// time, so without a limit a few megabytes would keep a reader busy for hours.
inline constexpr std::size_t kMaxDigits = 1'000'000;

}  // namespace execnet::wire
