// A plain Python value, without a Python: what channels carry and dumps() writes.
//
//   Value event = Dict{{"epoch", 3}, {"loss", 0.25}};
//   double loss = event["loss"].as<double>();
//   auto sizes = channel.receive().as<std::map<std::string, int>>();
//
// A Value owns what it holds, except a channel, which it shares. As with an int, any thread may copy and
// read it, and one at a time may change it.
#pragma once

#include <compare>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <execnet/export.hpp>

namespace execnet {

namespace core {
class ChannelHandle;
}

// A channel inside a value. Programs write and read execnet::Channel, which converts.
using ChannelRef = std::shared_ptr<core::ChannelHandle>;

class Value;

// Python's `bytes`. Distinct from std::string, which is text.
class Bytes {
 public:
  Bytes() = default;
  explicit Bytes(std::string bytes) : bytes_(std::move(bytes)) {}
  [[nodiscard]] std::string_view view() const { return bytes_; }
  [[nodiscard]] const char* data() const { return bytes_.data(); }
  [[nodiscard]] std::size_t size() const { return bytes_.size(); }
  friend auto operator<=>(const Bytes&, const Bytes&) = default;

 private:
  std::string bytes_;
};

// An integer of any size, in decimal: "-?[0-9]+" without superfluous zeros.
class EXECNET_EXPORT BigInt {
 public:
  // Leading zeros are dropped. Throws DataFormatError if `decimal` is not an integer.
  explicit BigInt(std::string_view decimal);
  [[nodiscard]] const std::string& decimal() const { return decimal_; }
  friend bool operator==(const BigInt&, const BigInt&) = default;
  // By number.
  friend EXECNET_EXPORT std::strong_ordering operator<=>(const BigInt& a, const BigInt& b);

 private:
  std::string decimal_;
};

// Python's `complex`. std::complex converts from and to it.
struct Complex {
  double real = 0;
  double imag = 0;
  friend auto operator<=>(const Complex&, const Complex&) = default;
};

// The four kinds of sequences of values. All are vectors; the type is what Python will see.
//   List{1, "a", 2.5}
class List : public std::vector<Value> {
 public:
  using vector::vector;
};
class Tuple : public std::vector<Value> {
 public:
  using vector::vector;
};
// Sets keep the order they were made in and do not look for duplicates; equality ignores order.
class Set : public std::vector<Value> {
 public:
  using vector::vector;
};
class FrozenSet : public std::vector<Value> {
 public:
  using vector::vector;
};

// Python's `dict`: pairs in the order they were made. Where a key occurs twice the last one counts.
//   Dict{{"epochs", 3}, {"rate", 0.1}}
class EXECNET_EXPORT Dict : public std::vector<std::pair<Value, Value>> {
 public:
  using vector::vector;
  // The value of the key, or nullptr.
  [[nodiscard]] const Value* find(const Value& key) const;
  [[nodiscard]] Value* find(const Value& key);
  [[nodiscard]] bool contains(const Value& key) const { return find(key) != nullptr; }
  // Throws DataFormatError if the key is missing, naming those that are there.
  [[nodiscard]] const Value& at(const Value& key) const;
  // Adds the key with None if it is missing.
  Value& operator[](const Value& key);
};

// How a C++ type becomes a Value and back. Specialise it to send types of your own:
//   template <> struct execnet::Convert<Point> {
//     static Value to(const Point& p) { return Tuple{p.x, p.y}; }
//     static Point from(const Value& v) { auto [x, y] = v.as<std::pair<int, int>>(); return {x, y}; }
//   };
// `from` throws DataFormatError for a value of another type. The library's own are in convert.hpp.
template <typename T>
struct Convert;

// Types that Convert can make a Value of, and out of a Value.
template <typename T>
concept ToValue = requires(const T& item) {
  { Convert<T>::to(item) } -> std::same_as<Value>;
};
template <typename T>
concept FromValue = requires(const Value& value) {
  { Convert<T>::from(value) } -> std::same_as<T>;
};

// The types a Value holds as they are.
template <typename T>
concept ValueAlternative =
    std::same_as<T, bool> || std::same_as<T, std::int64_t> || std::same_as<T, double> || std::same_as<T, Complex> ||
    std::same_as<T, Bytes> || std::same_as<T, std::string> || std::same_as<T, List> || std::same_as<T, Tuple> ||
    std::same_as<T, Set> || std::same_as<T, FrozenSet> || std::same_as<T, Dict> || std::same_as<T, ChannelRef>;

class EXECNET_EXPORT Value {
 public:
  // In the order of the alternatives of `data_`.
  enum class Type : std::uint8_t {
    kNone,
    kBool,
    kInt,
    kBigInt,
    kFloat,
    kComplex,
    kBytes,
    kString,
    kList,
    kTuple,
    kSet,
    kFrozenSet,
    kDict,
    kChannel,
  };

  // None.
  Value() = default;

  // Implicit, so that values are written as in Python: Value v = 3; List{1, "a"}.
  template <typename T>
    requires ValueAlternative<T>
  Value(T item) : data_(std::in_place_type<T>, std::move(item)) {}  // NOLINT(google-explicit-constructor)

  template <typename T>
    requires(!std::same_as<T, Value> && !std::same_as<T, BigInt> && !ValueAlternative<T> && ToValue<T>)
  Value(const T& item) : Value(Convert<T>::to(item)) {}  // NOLINT(google-explicit-constructor)

  // One that fits is held as std::int64_t: an integer has one representation.
  Value(BigInt integer);  // NOLINT(google-explicit-constructor)

  [[nodiscard]] Type type() const { return static_cast<Type>(data_.index()); }
  [[nodiscard]] bool is_none() const { return type() == Type::kNone; }

  // The value as a T. Throws DataFormatError, naming what was wanted and what is there.
  //   integers        from int, if in range           bool          from bool
  //   floating point  from float and int              std::string   from str
  //   vector, array   from list and tuple             pair, tuple   from tuple and list of that length
  //   set             from set and frozenset          map           from dict
  //   optional<X>     none: nullopt; else from X      vector<byte>  from bytes
  template <typename T>
  [[nodiscard]] T as() const {
    static_assert(FromValue<T>, "there is no execnet::Convert<T>::from for this type");
    return Convert<T>::from(*this);
  }

  // What is held, if it is a T exactly (a ValueAlternative or BigInt); else nullptr.
  template <typename T>
  [[nodiscard]] const T* get_if() const {
    return std::get_if<T>(&data_);
  }
  template <typename T>
  [[nodiscard]] T* get_if() {
    return std::get_if<T>(&data_);
  }

  // The value of a key of a dict, or an item of a list or tuple; negative indices count from the end.
  // Throws DataFormatError when there is no such key or item, or this is none of the three.
  [[nodiscard]] const Value& operator[](const Value& key) const;

  // Same type and same content: Value(1) is neither Value(1.0) nor Value(true). Sets and dicts
  // compare whatever their order. A NaN equals a NaN, so that a copy equals its original.
  friend EXECNET_EXPORT bool operator==(const Value& a, const Value& b);
  // A total order, by type first; any order will do for std::map and sorting, this is one.
  friend EXECNET_EXPORT std::weak_ordering operator<=>(const Value& a, const Value& b);
  friend EXECNET_EXPORT std::ostream& operator<<(std::ostream& out, const Value& value);

 private:
  std::variant<std::monostate, bool, std::int64_t, BigInt, double, Complex, Bytes, std::string, List, Tuple, Set,
               FrozenSet, Dict, ChannelRef>
      data_;
};

// As Python's repr(): "{'epoch': 3, 'loss': 0.25}". A channel is "<Channel>".
EXECNET_EXPORT std::string to_string(const Value& value);

// The type's name in Python: "int" for Type::kBigInt.
EXECNET_EXPORT std::string_view type_name(Value::Type type);

}  // namespace execnet

#include <execnet/convert.hpp>  // IWYU pragma: export
