// Bytes to values. One reader for every kind of value: what is special about execnet::Value or
// PyObject* is in a Builder,
//
//   struct Builder {
//     using Item = ...;                                  // owns an object; movable
//     Item none();  Item boolean(bool);  Item integer(std::int64_t);
//     Item decimal(std::string_view digits);             // "-?[0-9]+", at most kMaxDigits
//     Item real(double);  Item complex(double, double);  Item bytes(std::string_view);
//     Item string(std::string_view utf8);                // to be checked
//     Item key(std::string_view utf8);                   // the same, of a dict: likely to come again
//     Item latin1(std::string_view);                     // a str of these code points
//     Item channel(std::uint32_t id);
//     Item list(std::size_t size);                       // that many times None
//     Item dict();
//     Item tuple(std::size_t size, next);                // next() gives the items in order
//     Item set(std::size_t size, next);  Item frozen_set(std::size_t size, next);
//     void set_item(Item& list, std::size_t index, Item value);
//     void set_item(Item& dict, Item key, Item value);
//   };
//
// which throws Malformed for what it finds wrong. The bytes come from a stranger: no length is
// believed before the bytes were seen, and memory stays within a small multiple of the input.
// A decoder is used once, by one thread.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <execnet/dump.hpp>

#include "wire/opcode.hpp"

namespace execnet::wire {

// What a Builder throws; the decoder adds the offset and makes it a LoadError.
struct Malformed {
  std::string what;
};

template <typename Builder>
class Decoder {
 public:
  using Item = typename Builder::Item;

  // Reads from `start` on; offsets in errors count from the beginning of `bytes`.
  Decoder(Builder& builder, std::string_view bytes, StringConfig strings, std::size_t start = 0)
      : builder_(builder), bytes_(bytes), strings_(strings), at_(start), list_budget_(bytes.size() / kListItemSize) {
    stack_.reserve(32);
  }

  // The value up to its STOP. Throws LoadError.
  Item decode() {
    try {
      while (step()) {
      }
    } catch (const Malformed& malformed) {
      fail(malformed.what);
    }
    return finish(stack_.front());
  }

  // Where the value ended, after decode().
  [[nodiscard]] std::size_t end() const { return at_; }

 private:
  enum class Kind : std::uint8_t { kSealed, kInteger, kList, kDict };

  // An integer that fits is kept as a number until it is clear what it is for: most are list
  // indices, of which no object has to be made.
  struct Slot {
    Item item{};
    std::int32_t number = 0;  // kInteger: itself; kList: its size
    std::uint16_t depth = 0;  // levels of containers, this one included
    Kind kind = Kind::kSealed;
    bool hashable = true;
  };

  // What an item of a list takes besides the item: F, index, P.
  static constexpr std::size_t kListItemSize = 6;

  [[noreturn]] void fail(const std::string& what) const { throw LoadError(what, op_at_); }

  // Apart, so that take() is short enough to be inlined.
  [[noreturn]] void fail_truncated(std::size_t size) const {
    fail("truncated: " + std::to_string(size) + " bytes announced, " + std::to_string(bytes_.size() - at_) + " there");
  }

  std::string_view take(std::size_t size) {
    if (size > bytes_.size() - at_) [[unlikely]] {
      fail_truncated(size);
    }
    const std::string_view taken{bytes_.data() + at_, size};
    at_ += size;
    return taken;
  }

  template <typename Unsigned>
  Unsigned take_big_endian() {
    const char* data = take(sizeof(Unsigned)).data();
    Unsigned number = 0;
    for (std::size_t i = 0; i < sizeof number; ++i) {  // compiles to one load and a byte swap
      number = static_cast<Unsigned>((number << 8) | static_cast<unsigned char>(data[i]));
    }
    return number;
  }

  std::int32_t take_int4() { return static_cast<std::int32_t>(take_big_endian<std::uint32_t>()); }
  double take_double() { return std::bit_cast<double>(take_big_endian<std::uint64_t>()); }

  std::size_t take_length() {
    const std::int32_t length = take_int4();
    if (length < 0) {
      fail("negative length " + std::to_string(length));
    }
    return static_cast<std::size_t>(length);
  }

  std::string_view take_data() { return take(take_length()); }

  std::string_view take_data8() {
    const auto length = static_cast<std::int64_t>(take_big_endian<std::uint64_t>());
    if (length < 0) {
      fail("negative length " + std::to_string(length));
    }
    return take(static_cast<std::size_t>(length));
  }

  std::string_view take_decimal() {
    const std::string_view text = take_data();
    const std::string_view digits = text.substr(!text.empty() && text.front() == '-' ? 1 : 0);
    if (digits.empty() || !std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      fail("an integer must be decimal digits");
    }
    if (digits.size() > kMaxDigits) {
      fail("an integer of more than " + std::to_string(kMaxDigits) + " digits");
    }
    return text;
  }

  void push(Item item) { stack_.push_back({std::move(item)}); }
  void push_number(std::int32_t number) { stack_.push_back({Item{}, number, 0, Kind::kInteger}); }
  void push_string(std::string_view utf8) {
    if (strings_.py3str_as_py2str) {
      push(builder_.bytes(utf8));
    } else if (!stack_.empty() && stack_.back().kind == Kind::kDict) {
      Item key = builder_.key(utf8);
      Item value{};
      if (take_plain(value)) {
        builder_.set_item(stack_.back().item, std::move(key), std::move(value));
      } else {
        push(std::move(key));
      }
    } else {
      push(builder_.string(utf8));
    }
  }

  // Most items of lists and dicts are plain, and SETITEM follows: nothing has to be stacked for these. If such a one is
  // next, takes it and the SETITEM; else leaves everything for step(), which knows what to say of it.
  bool take_plain(Item& item) {
    const std::string_view next = bytes_.substr(at_);
    const auto is_set_after = [&](std::size_t size) {
      return next.size() > size && static_cast<Op>(next[size]) == Op::kSetItem;
    };
    if (next.empty()) {
      return false;
    }
    op_at_ = at_;
    switch (static_cast<Op>(next.front())) {
      case Op::kInt:
        if (!is_set_after(5)) {
          return false;
        }
        ++at_;
        item = builder_.integer(take_int4());
        break;
      case Op::kFloat:
        if (!is_set_after(9)) {
          return false;
        }
        ++at_;
        item = builder_.real(take_double());
        break;
      case Op::kPy3String: {
        if (strings_.py3str_as_py2str || next.size() < 5) {
          return false;
        }
        ++at_;
        const std::int32_t length = take_int4();
        if (length < 0 || !is_set_after(5 + static_cast<std::size_t>(length))) {
          at_ = op_at_;
          return false;
        }
        item = builder_.string(take(static_cast<std::size_t>(length)));
        break;
      }
      case Op::kNone:
      case Op::kTrue:
      case Op::kFalse: {
        if (!is_set_after(1)) {
          return false;
        }
        const auto op = static_cast<Op>(bytes_[at_++]);
        item = op == Op::kNone ? builder_.none() : builder_.boolean(op == Op::kTrue);
        break;
      }
      default: return false;
    }
    ++at_;  // the SETITEM
    return true;
  }

  // `number` may be where in the list below it the next item belongs.
  void take_number(std::int32_t number) {
    if (!stack_.empty() && stack_.back().kind == Kind::kList && number >= 0 && number < stack_.back().number) {
      Item item{};
      if (take_plain(item)) {
        builder_.set_item(stack_.back().item, static_cast<std::size_t>(number), std::move(item));
        return;
      }
    }
    push_number(number);
  }

  Item finish(Slot& slot) { return slot.kind == Kind::kInteger ? builder_.integer(slot.number) : std::move(slot.item); }

  // One level around something of `depth` levels.
  [[nodiscard]] std::uint16_t wrap(std::uint16_t depth) const {
    if (depth >= kMaxDepth) {
      fail("more than " + std::to_string(kMaxDepth) + " levels of nesting");
    }
    return static_cast<std::uint16_t>(depth + 1);
  }

  void require_hashable(const Slot& slot, const char* where) const {
    if (!slot.hashable) {
      fail(std::string("unhashable ") + where);
    }
  }

  void new_list() {
    const std::int32_t number = take_int4();
    if (number < 0) {
      fail("negative length " + std::to_string(number));
    }
    const auto size = static_cast<std::size_t>(number);
    if (size > list_budget_) {  // counts all lists: one within the other must not share the same bytes
      fail("a list of " + std::to_string(size) + " items is more than the input can fill");
    }
    list_budget_ -= size;
    stack_.push_back({builder_.list(size), number, 1, Kind::kList, false});
  }

  enum class Run { kTuple, kSet, kFrozenSet };

  void build(Run run) {
    const std::size_t size = take_length();
    if (size > stack_.size()) {
      fail(std::to_string(size) + " items wanted, " + std::to_string(stack_.size()) + " there");
    }
    const std::size_t first = stack_.size() - size;
    Slot built;
    for (std::size_t i = first; i < stack_.size(); ++i) {
      built.depth = std::max(built.depth, stack_[i].depth);
      built.hashable = built.hashable && stack_[i].hashable;
      if (run != Run::kTuple) {
        require_hashable(stack_[i], "set member");
      }
    }
    built.depth = wrap(built.depth);
    std::size_t i = first;
    const auto next = [&] { return finish(stack_[i++]); };
    switch (run) {
      case Run::kTuple: built.item = builder_.tuple(size, next); break;
      case Run::kFrozenSet: built.item = builder_.frozen_set(size, next); break;
      case Run::kSet:
        built.item = builder_.set(size, next);
        built.hashable = false;
        break;
    }
    stack_.resize(first);
    stack_.push_back(std::move(built));
  }

  void set_item() {
    if (stack_.size() < 3) {
      fail("nothing to set an item of");
    }
    Slot& value = stack_[stack_.size() - 1];
    Slot& key = stack_[stack_.size() - 2];
    Slot& container = stack_[stack_.size() - 3];
    if (container.kind == Kind::kList) {
      if (key.kind != Kind::kInteger) {
        fail("a list index must be an integer");
      }
      if (key.number < 0 || key.number >= container.number) {
        fail("list index " + std::to_string(key.number) + " out of range");
      }
      container.depth = std::max(container.depth, wrap(value.depth));
      builder_.set_item(container.item, static_cast<std::size_t>(key.number), finish(value));
    } else if (container.kind == Kind::kDict) {
      require_hashable(key, "dict key");
      container.depth = std::max(container.depth, wrap(std::max(key.depth, value.depth)));
      Item key_item = finish(key);
      builder_.set_item(container.item, std::move(key_item), finish(value));
    } else {
      fail("items can be set in a list or dict only");
    }
    stack_.pop_back();
    stack_.pop_back();
  }

  // Reads one opcode; false for STOP.
  bool step() {
    op_at_ = at_;
    if (at_ == bytes_.size()) {
      fail("truncated: the value has no end");
    }
    const auto op = static_cast<Op>(bytes_[at_++]);
    switch (op) {
      case Op::kInt:
      case Op::kLong: take_number(take_int4()); break;
      case Op::kSetItem: set_item(); break;
      case Op::kPy3String: push_string(take_data()); break;
      case Op::kString8: push_string(take_data8()); break;
      case Op::kUnicode: push(builder_.string(take_data())); break;
      case Op::kPy2String: {
        const std::string_view data = take_data();
        push(strings_.py2str_as_py3str ? builder_.latin1(data) : builder_.bytes(data));
        break;
      }
      case Op::kBytes: push(builder_.bytes(take_data())); break;
      case Op::kBytes8: push(builder_.bytes(take_data8())); break;
      case Op::kNone: push(builder_.none()); break;
      case Op::kTrue: push(builder_.boolean(true)); break;
      case Op::kFalse: push(builder_.boolean(false)); break;
      case Op::kFloat: push(builder_.real(take_double())); break;
      case Op::kComplex: {
        const double real = take_double();
        const double imag = take_double();
        push(builder_.complex(real, imag));
        break;
      }
      case Op::kLongInt:
      case Op::kLongLong: push(builder_.decimal(take_decimal())); break;
      case Op::kNewList: new_list(); break;
      case Op::kNewDict: stack_.push_back({builder_.dict(), 0, 1, Kind::kDict, false}); break;
      case Op::kBuildTuple: build(Run::kTuple); break;
      case Op::kSet: build(Run::kSet); break;
      case Op::kFrozenSet: build(Run::kFrozenSet); break;
      case Op::kChannel: {
        const std::int32_t id = take_int4();
        if (id < 0) {
          fail("negative channel id " + std::to_string(id));
        }
        push(builder_.channel(static_cast<std::uint32_t>(id)));
        break;
      }
      case Op::kStop:
        if (stack_.size() != 1) {
          fail("the value ends with " + std::to_string(stack_.size()) + " items instead of 1");
        }
        return false;
      default: fail("unknown opcode " + std::to_string(static_cast<unsigned>(op)));
    }
    return true;
  }

  Builder& builder_;
  std::string_view bytes_;
  StringConfig strings_;
  std::size_t at_;
  std::size_t op_at_ = 0;
  std::size_t list_budget_;
  std::vector<Slot> stack_;
};

// Where a dumped value starts, after its version byte. Throws LoadError for another version.
inline std::size_t check_version(std::string_view bytes) {
  if (bytes.empty()) {
    throw LoadError("truncated: no version byte", 0);
  }
  if (bytes.front() != kDumpVersion) {
    throw LoadError("wrong dumpformat version " + std::to_string(static_cast<unsigned char>(bytes.front())), 0);
  }
  return 1;
}

// Throws LoadError if anything follows a value that ended at `end`.
inline void check_end(std::string_view bytes, std::size_t end) {
  if (end != bytes.size()) {
    throw LoadError(std::to_string(bytes.size() - end) + " bytes after the end of the value", end);
  }
}

}  // namespace execnet::wire
