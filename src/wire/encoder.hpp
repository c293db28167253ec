// Values to bytes. One traversal for every kind of value: what is special about execnet::Value or
// PyObject* is in a Source,
//
//   struct Source {
//     using Item = ...;                     // cheap to copy; the item outlives the call
//     // Says what the item is: calls exactly one of none() ... refuse() of the encoder.
//     void visit(Item item, Encoder<Source>& encoder);
//     std::string repr(Item item);          // for error messages only
//   };
//
// An encoder is used once, by one thread.
#pragma once

#include <bit>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <execnet/error.hpp>

#include "base/buffer.hpp"
#include "base/rope.hpp"
#include "wire/big_endian.hpp"
#include "wire/opcode.hpp"

namespace execnet::wire {

inline char* put(char* at, Op op) {
  *at = static_cast<char>(op);
  return at + 1;
}

inline void put_int4(base::Buffer& out, Op op, std::int32_t number) {
  put_big_endian(put(out.extend(5), op), static_cast<std::uint32_t>(number));
}

inline constexpr std::size_t kMaxInt4 = std::numeric_limits<std::int32_t>::max();

// The opcode and length in front of `size` bytes. `wide` is used when the length does not fit `op`.
inline void put_length(base::Buffer& out, Op op, Op wide, std::size_t size) {
  if (size <= kMaxInt4) [[likely]] {
    put_int4(out, op, static_cast<std::int32_t>(size));
  } else {
    put_big_endian(put(out.extend(9), wide), static_cast<std::uint64_t>(size));
  }
}

template <typename Source>
class Encoder {
 public:
  using Item = typename Source::Item;

  Encoder(Source& source, base::Buffer& out) : source_(source), out_(out) {}
  // Large bytes and strings may be lent. After encode() has thrown, `out` is not usable.
  Encoder(Source& source, base::Rope& out) : source_(source), out_(out.own()), rope_(&out) {}

  // Appends the item and STOP. When it throws, a Buffer is as before. Throws DumpError.
  void encode(Item item) {
    const std::size_t before = out_.size();
    try {
      source_.visit(item, *this);
      out_.push_back(static_cast<char>(Op::kStop));
    } catch (...) {
      out_.truncate(before);
      throw;
    }
  }

  // What Source::visit() calls.

  void none() { out_.push_back(static_cast<char>(Op::kNone)); }
  void boolean(bool value) { out_.push_back(static_cast<char>(value ? Op::kTrue : Op::kFalse)); }

  void integer(std::int64_t value) {
    if (value == static_cast<std::int32_t>(value)) [[likely]] {
      put_int4(out_, Op::kInt, static_cast<std::int32_t>(value));
      return;
    }
    char digits[24];
    const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
    decimal({digits, static_cast<std::size_t>(end - digits)});
  }

  // An integer of any size: "-?[0-9]+".
  void decimal(std::string_view digits) {
    if (digits.size() > kMaxDigits + (digits.starts_with('-') ? 1 : 0)) {
      refuse_digits();
    }
    put_int4(out_, Op::kLongInt, static_cast<std::int32_t>(digits.size()));
    out_.append(digits);
  }

  void real(double value) { put_double(put(out_.extend(9), Op::kFloat), value); }
  void complex(double real, double imag) { put_double(put_double(put(out_.extend(17), Op::kComplex), real), imag); }

  void bytes(std::string_view bytes) {
    put_length(out_, Op::kBytes, Op::kBytes8, bytes.size());
    out_.append(bytes);
  }
  // The same for bytes that owner(), a std::shared_ptr<const void>, keeps unchanged.
  template <typename Owner>
  void bytes(std::string_view bytes, Owner&& owner) {
    put_length(out_, Op::kBytes, Op::kBytes8, bytes.size());
    append(bytes, owner);
  }

  // REQUIRES: utf8 is valid UTF-8.
  void string(std::string_view utf8) {
    put_length(out_, Op::kPy3String, Op::kString8, utf8.size());
    out_.append(utf8);
  }
  template <typename Owner>
  void string(std::string_view utf8, Owner&& owner) {
    put_length(out_, Op::kPy3String, Op::kString8, utf8.size());
    append(utf8, owner);
  }

  void channel(std::uint32_t id) {
    if (id > kMaxInt4) {
      refuse("channel id " + std::to_string(id) + " is too large");
    }
    put_int4(out_, Op::kChannel, static_cast<std::int32_t>(id));
  }

  // `at(i)` is the item of that index.
  template <typename At>
  void list(std::size_t size, At&& at) {
    Level level(*this, Step::kIndex);
    put_int4(out_, Op::kNewList, count(size));
    if (size == 0) {
      return;
    }
    put_int4(out_, Op::kInt, 0);
    for (;;) {
      source_.visit(at(level.index), *this);
      if (++level.index == size) {
        break;
      }
      // The end of one item and the beginning of the next are written together.
      put_big_endian(put(put(out_.extend(6), Op::kSetItem), Op::kInt), static_cast<std::uint32_t>(level.index));
    }
    out_.push_back(static_cast<char>(Op::kSetItem));
  }

  template <typename At>
  void tuple(std::size_t size, At&& at) {
    Level level(*this, Step::kIndex);
    for (; level.index < size; ++level.index) {
      source_.visit(at(level.index), *this);
    }
    put_int4(out_, Op::kBuildTuple, count(size));
  }

  // `each(visit)` calls visit(member) for every member, `size` times. `op` is kSet or kFrozenSet.
  template <typename Each>
  void set(Op op, std::size_t size, Each&& each) {
    Level level(*this, Step::kMember);
    each([&](Item member) { source_.visit(member, *this); });
    put_int4(out_, op, count(size));
  }

  // `each(visit)` calls visit(key, value) for every pair.
  template <typename Each>
  void dict(Each&& each) {
    Level level(*this, Step::kKey);
    out_.push_back(static_cast<char>(Op::kNewDict));
    each([&](Item key, Item value) {
      level.key = key;
      level.step = Step::kKey;
      source_.visit(key, *this);
      level.step = Step::kValue;
      source_.visit(value, *this);
      out_.push_back(static_cast<char>(Op::kSetItem));
    });
  }

  // For an integer with more digits than decimal() takes.
  [[noreturn]] void refuse_digits() {
    refuse("can't serialize an integer of more than " + std::to_string(kMaxDigits) + " digits");
  }

  // Throws DumpError: `what`, and where in the whole value the item is.
  [[noreturn]] void refuse(const std::string& what) { throw DumpError(what + path()); }

  // " at [3]['status']". Of a long path only both ends are shown, and for the outermost item nothing.
  std::string path() {
    constexpr std::size_t kEnd = 8;
    std::vector<Level*> levels;
    for (Level* level = level_; level != nullptr; level = level->outer) {
      levels.push_back(level);
    }
    std::string text = levels.empty() ? "" : " at ";
    for (std::size_t i = 0; i < levels.size(); ++i) {
      if (i == kEnd && levels.size() > 2 * kEnd) {
        text += "...";
        i = levels.size() - kEnd;
      }
      Level& level = *levels[levels.size() - 1 - i];
      switch (level.step) {
        case Step::kIndex: text += '[' + std::to_string(level.index) + ']'; break;
        case Step::kValue: text += '[' + source_.repr(level.key) + ']'; break;
        case Step::kKey: text += '{' + source_.repr(level.key) + ": ...}"; break;
        case Step::kMember: text += "{...}"; break;
      }
    }
    return text;
  }

 private:
  enum class Step : std::uint8_t { kIndex, kKey, kValue, kMember };

  // One container that is being written. They are linked from the innermost outwards, so that an
  // error can name the path, and paths cost nothing otherwise.
  struct Level {
    Level(Encoder& owner, Step first) : encoder(owner), outer(owner.level_), step(first) {
      if (encoder.depth_ == kMaxDepth) {
        encoder.refuse("can't serialize more than " + std::to_string(kMaxDepth) + " levels of nesting");
      }
      ++encoder.depth_;
      encoder.level_ = this;
    }
    ~Level() {
      encoder.level_ = outer;
      --encoder.depth_;
    }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;

    Encoder& encoder;
    Level* outer;
    std::size_t index = 0;
    Item key{};
    Step step;
  };

  template <typename Owner>
  void append(std::string_view bytes, Owner&& owner) {
    if (rope_ != nullptr && bytes.size() >= base::Rope::kWorthLending) {
      rope_->lend(bytes, owner());
    } else {
      out_.append(bytes);
    }
  }

  static char* put_double(char* at, double value) { return put_big_endian(at, std::bit_cast<std::uint64_t>(value)); }

  std::int32_t count(std::size_t size) {
    if (size > kMaxInt4) {
      refuse("can't serialize a container of " + std::to_string(size) + " items");
    }
    return static_cast<std::int32_t>(size);
  }

  Source& source_;
  base::Buffer& out_;
  base::Rope* rope_ = nullptr;
  Level* level_ = nullptr;
  std::size_t depth_ = 0;
};

}  // namespace execnet::wire
