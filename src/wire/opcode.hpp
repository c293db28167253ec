// The table of the dump format: docs/wire_format.md says what each does. worker/execnet_worker/values.py has the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

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

// What comes after an opcode: so many bytes and, if these are a length, as many more as they say.
struct Operand {
  std::size_t width = 0;
  bool is_length = false;
};

// Nothing if there is no such opcode.
constexpr std::optional<Operand> operand_of(Op op) {
  switch (op) {
    case Op::kBytes:
    case Op::kPy2String:
    case Op::kPy3String:
    case Op::kUnicode:
    case Op::kLongInt:
    case Op::kLongLong: return Operand{4, true};
    case Op::kBytes8:
    case Op::kString8: return Operand{8, true};
    case Op::kBuildTuple:
    case Op::kChannel:
    case Op::kSet:
    case Op::kFrozenSet:
    case Op::kInt:
    case Op::kLong:
    case Op::kNewList: return Operand{4};
    case Op::kFloat: return Operand{8};
    case Op::kComplex: return Operand{16};
    case Op::kFalse:
    case Op::kTrue:
    case Op::kNone:
    case Op::kNewDict:
    case Op::kSetItem:
    case Op::kStop: return Operand{};
  }
  return std::nullopt;
}

inline constexpr char kDumpVersion = 2;

// How deep containers may be nested, on writing and on reading. Destroying a value recurses.
inline constexpr std::size_t kMaxDepth = 1000;

// The longest integer, in decimal digits. Converting digits into an integer takes more than linear
// time, so without a limit a few megabytes would keep a reader busy for hours.
inline constexpr std::size_t kMaxDigits = 1'000'000;

}  // namespace execnet::wire
