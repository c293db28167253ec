// Bytes to values. One reader for every kind of value: what is special about execnet::Value or
// PyObject* is in a Builder,
//
//   struct Builder {
//     using Item = ...;                                  // owns an object; movable
//     Item none();  Item boolean(bool);  Item integer(std::int32_t);
//     Item decimal(std::string_view digits);             // "-?[0-9]+", at most kMaxDigits
//     Item real(double);  Item complex(double, double);  Item bytes(std::string_view);
//     Item string(std::string_view utf8);                // to be checked
//     Item latin1(std::string_view);                     // a str of these code points
//     Item channel(std::uint32_t id);
//     Item list(std::size_t size);                       // room for so many items, none of them set yet
//     Item dict();
//     Item tuple(std::size_t size, next);                // next() gives the items in order
//     Item set(std::size_t size, next);  Item frozen_set(std::size_t size, next);
//     void set_item(Item& list, std::size_t index, Item value);  // items before it that were not set become None
//     void fill_up(Item& list, std::size_t size);        // items at the end that were not set become None
//     void set_item(Item& dict, Item key, Item value);
//   };
//
// which throws Malformed for what it finds wrong. The bytes are not trusted: no length is
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

#include "wire/big_endian.hpp"
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
      : builder_(builder), bytes_(bytes), strings_(strings), at_(start), list_budget_(bytes.size() / kListItemSize) {}

  // The value up to its STOP. Throws LoadError.
  Item decode() {
    try {
      Item item{};
      if (take_plain(item)) {
        if (is_next(Op::kStop)) {  // as in most messages
          ++at_;
          return item;
        }
        push(std::move(item));
      }
      stack_.reserve(32);
      do {
        take_plain_ones();
      } while (step());
    } catch (const Malformed& malformed) {
      fail(malformed.what);
    }
    return finish(stack_.front());
  }

  // Where the value ended, after decode().
  [[nodiscard]] std::size_t end() const { return at_; }

 private:
  enum class Kind : std::uint8_t { kSealed, kInteger, kList, kDict };

  // An integer where a list may have an index stays a number until it is clear that it is an item. No object is made
  // for an index.
  struct Slot {
    Item item{};
    std::int32_t number = 0;  // kInteger: itself; kList: its size
    std::uint16_t depth = 0;  // levels of containers, this one included
    Kind kind = Kind::kSealed;
    bool hashable = true;
  };

  // The bytes of a list item besides the item itself: F, index, P.
  static constexpr std::size_t kListItemSize = 6;

  [[noreturn]] void fail(const std::string& what) const { throw LoadError(what, op_at_); }

  // Functions of their own, so that their callers are short enough to be inlined.
  [[noreturn, gnu::noinline]] void fail_negative(std::int64_t length) const {
    fail("negative length " + std::to_string(length));
  }
  [[noreturn, gnu::noinline]] void fail_truncated(std::size_t size) const {
    fail("truncated: " + std::to_string(size) + " bytes announced, " + std::to_string(bytes_.size() - at_) + " there");
  }

  // Always inlined: a compiler that finds its caller long enough makes a call of it for each integer.
  [[gnu::always_inline]] std::string_view take(std::size_t size) {
    if (size > bytes_.size() - at_) [[unlikely]] {
      fail_truncated(size);
    }
    const std::string_view taken{bytes_.data() + at_, size};
    at_ += size;
    return taken;
  }

  template <typename Unsigned>
  Unsigned take_big_endian() {
    static_cast<void>(take(sizeof(Unsigned)));
    return get_big_endian<Unsigned>(bytes_.data() + at_ - sizeof(Unsigned));
  }

  std::int32_t take_int4() { return static_cast<std::int32_t>(take_big_endian<std::uint32_t>()); }
  double take_double() { return std::bit_cast<double>(take_big_endian<std::uint64_t>()); }

  std::size_t take_length() {
    const std::int32_t length = take_int4();
    if (length < 0) [[unlikely]] {
      fail_negative(length);
    }
    return static_cast<std::size_t>(length);
  }

  std::string_view take_data() { return take(take_length()); }

  std::string_view take_data8() {
    const auto length = static_cast<std::int64_t>(take_big_endian<std::uint64_t>());
    if (length < 0) {
      fail_negative(length);
    }
    return take(static_cast<std::size_t>(length));
  }

  [[gnu::noinline]] std::string_view take_decimal() {
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

  [[nodiscard]] bool is_next(Op op) const { return at_ < bytes_.size() && static_cast<Op>(bytes_[at_]) == op; }

  // Takes the next item if it is plain, that is of a frequent type that contains no other items. Otherwise leaves
  // everything to step(). It is inlined because a caller then knows that `item` holds nothing that must be released.
  [[gnu::always_inline]] bool take_plain(Item& item) {
    if (at_ == bytes_.size()) [[unlikely]] {
      return false;
    }
    op_at_ = at_++;
    switch (static_cast<Op>(bytes_[op_at_])) {
      case Op::kInt: item = builder_.integer(take_int4()); return true;
      case Op::kPy3String: item = string(take_data()); return true;
      case Op::kFloat: item = builder_.real(take_double()); return true;
      case Op::kNone: item = builder_.none(); return true;
      case Op::kTrue: item = builder_.boolean(true); return true;
      case Op::kFalse: item = builder_.boolean(false); return true;
      case Op::kBytes: item = builder_.bytes(take_data()); return true;
      case Op::kLongInt: item = builder_.decimal(take_decimal()); return true;
      default: at_ = op_at_; return false;
    }
  }

  // Takes plain items until something else comes. Most items of lists and dicts are followed by SETITEM and are never
  // put on the stack.
  void take_plain_ones() {
    for (;;) {
      const Kind kind = stack_.empty() ? Kind::kSealed : stack_.back().kind;
      if (kind == Kind::kList && is_next(Op::kInt)) {
        if (!fill(stack_.back().item, stack_.back().number)) {
          return;
        }
      } else if (kind == Kind::kDict) {
        if (!fill(stack_.back().item)) {
          return;
        }
      } else {
        Item item{};
        if (!take_plain(item)) {
          return;
        }
        push(std::move(item));
      }
    }
  }

  // Sets items of the list of that size, which is on top of the stack, for as long as they are plain. False if the next
  // one is not.
  bool fill(Item& list, std::int32_t size) {
    while (is_next(Op::kInt)) {
      op_at_ = at_++;
      const std::int32_t index = take_int4();
      Item item{};
      const bool is_plain = take_plain(item);
      // A negative index is past the end, too, as an unsigned number.
      if (is_plain && static_cast<std::uint32_t>(index) < static_cast<std::uint32_t>(size) && is_next(Op::kSetItem))
          [[likely]] {
        ++at_;
        builder_.set_item(list, static_cast<std::size_t>(index), std::move(item));
        continue;
      }
      push_number(index);
      if (is_plain) {
        push(std::move(item));
      }
      return is_plain;
    }
    return true;
  }

  // The same for a dict.
  bool fill(Item& dict) {
    Item key{};
    while (take_plain(key)) {
      Item value{};
      const bool is_plain = take_plain(value);
      if (is_plain && is_next(Op::kSetItem)) [[likely]] {
        ++at_;
        builder_.set_item(dict, std::move(key), std::move(value));
        continue;
      }
      push(std::move(key));
      if (is_plain) {
        push(std::move(value));
      }
      return is_plain;
    }
    return false;
  }

  // What Python 3 wrote as a str.
  Item string(std::string_view utf8) {
    return strings_.py3str_as_py2str ? builder_.bytes(utf8) : builder_.string(utf8);
  }

  Item finish(Slot& slot) {
    if (slot.kind == Kind::kInteger) {
      return builder_.integer(slot.number);
    }
    if (slot.kind == Kind::kList) {
      builder_.fill_up(slot.item, static_cast<std::size_t>(slot.number));
    }
    return std::move(slot.item);
  }

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
      fail_negative(number);
    }
    const auto size = static_cast<std::size_t>(number);
    if (size > list_budget_) {  // one budget for all lists: nested lists must not count the same bytes twice
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

  // Reads one opcode that is not of a plain item; false for STOP.
  bool step() {
    op_at_ = at_;
    if (at_ == bytes_.size()) {
      fail("truncated: the value has no end");
    }
    const auto op = static_cast<Op>(bytes_[at_++]);
    switch (op) {
      case Op::kSetItem: set_item(); break;
      case Op::kString8: push(string(take_data8())); break;
      case Op::kUnicode: push(builder_.string(take_data())); break;
      case Op::kPy2String: {
        const std::string_view data = take_data();
        push(strings_.py2str_as_py3str ? builder_.latin1(data) : builder_.bytes(data));
        break;
      }
      case Op::kBytes8: push(builder_.bytes(take_data8())); break;
      case Op::kComplex: {
        const double real = take_double();
        const double imag = take_double();
        push(builder_.complex(real, imag));
        break;
      }
      case Op::kLong: push_number(take_int4()); break;
      case Op::kLongLong: push(builder_.decimal(take_decimal())); break;
      case Op::kNewList: new_list(); break;
      case Op::kNewDict: stack_.push_back({builder_.dict(), 0, 1, Kind::kDict, false}); break;
      case Op::kBuildTuple: build(Run::kTuple); break;
      case Op::kSet: build(Run::kSet); break;
      case Op::kFrozenSet: build(Run::kFrozenSet); break;
      case Op::kChannel: {
        const std::int32_t id = take_int4();
        if (id <= 0) {  // 0 is the connection itself
          fail("bad channel id " + std::to_string(id));
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
