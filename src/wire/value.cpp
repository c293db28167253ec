#include <execnet/value.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <ostream>
#include <span>

#include <execnet/error.hpp>

#include "wire/utf8.hpp"

namespace execnet {

namespace {

using Type = Value::Type;

// --- text ------------------------------------------------------------------------------------------

// Writes Python's repr(), and stops soon after `limit` bytes: error messages quote values of any size.
class Printer {
 public:
  Printer(std::string& out, std::size_t limit) : out_(out), limit_(limit) {}

  void print(const Value& value) {
    switch (value.type()) {
      case Type::kNone: out_ += "None"; break;
      case Type::kBool: out_ += *value.get_if<bool>() ? "True" : "False"; break;
      case Type::kInt: out_ += std::to_string(*value.get_if<std::int64_t>()); break;
      case Type::kBigInt: out_ += value.get_if<BigInt>()->decimal(); break;
      case Type::kFloat: real(*value.get_if<double>(), ".0"); break;
      case Type::kComplex: complex(*value.get_if<Complex>()); break;
      case Type::kBytes:
        out_ += 'b';
        quoted(value.get_if<Bytes>()->view(), true);
        break;
      case Type::kString: quoted(*value.get_if<std::string>(), false); break;
      case Type::kList: items("[", *value.get_if<List>(), "]"); break;
      case Type::kTuple: items("(", *value.get_if<Tuple>(), value.get_if<Tuple>()->size() == 1 ? ",)" : ")"); break;
      case Type::kSet: set("set()", "{", *value.get_if<Set>(), "}"); break;
      case Type::kFrozenSet: set("frozenset()", "frozenset({", *value.get_if<FrozenSet>(), "})"); break;
      case Type::kDict: dict(*value.get_if<Dict>()); break;
      case Type::kChannel: out_ += "<Channel>"; break;
    }
  }

 private:
  [[nodiscard]] std::size_t left() const { return out_.size() < limit_ ? limit_ - out_.size() : 0; }

  // The shortest digits that give the number back, laid out as Python does; `whole` is what a whole
  // number gets appended.
  void real(double number, const char* whole) {
    if (!std::isfinite(number)) {
      out_ += std::isnan(number) ? "nan" : number > 0 ? "inf" : "-inf";
      return;
    }
    const double size = std::fabs(number);
    const bool fixed = size == 0 || (size >= 1e-4 && size < 1e16);
    char text[32];
    const auto end = std::to_chars(text, text + sizeof text, number,
                                   fixed ? std::chars_format::fixed : std::chars_format::scientific)
                         .ptr;
    const std::string_view written(text, static_cast<std::size_t>(end - text));
    out_ += written;
    if (fixed && written.find('.') == std::string_view::npos) {
      out_ += whole;
    }
  }

  void complex(const Complex& number) {
    const bool imaginary_only = number.real == 0 && !std::signbit(number.real);
    if (!imaginary_only) {
      out_ += '(';
      real(number.real, "");
      if (!std::signbit(number.imag) || std::isnan(number.imag)) {
        out_ += '+';
      }
    }
    real(number.imag, "");
    out_ += imaginary_only ? "j" : "j)";
  }

  void quoted(std::string_view text, bool bytes) {
    const bool escape_high = bytes || !wire::is_utf8(text);
    const bool has_single = text.find('\'') != std::string_view::npos;
    const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
    out_ += quote;
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      if (left() == 0 && (byte & 0xC0) != 0x80) {  // not within a character
        break;
      }
      if (c == quote || c == '\\') {
        out_ += '\\';
        out_ += c;
      } else if (c == '\n') {
        out_ += "\\n";
      } else if (c == '\r') {
        out_ += "\\r";
      } else if (c == '\t') {
        out_ += "\\t";
      } else if (byte < 0x20 || byte == 0x7F || (byte >= 0x80 && escape_high)) {
        constexpr std::string_view kHex = "0123456789abcdef";
        out_ += "\\x";
        out_ += kHex[byte >> 4];
        out_ += kHex[byte & 15];
      } else {
        out_ += c;
      }
    }
    out_ += quote;
  }

  void items(const char* open, std::span<const Value> items, const char* close) {
    out_ += open;
    for (std::size_t i = 0; i < items.size() && left() > 0; ++i) {
      out_ += i == 0 ? "" : ", ";
      print(items[i]);
    }
    out_ += close;
  }

  void set(const char* empty, const char* open, std::span<const Value> members, const char* close) {
    if (members.empty()) {
      out_ += empty;
    } else {
      items(open, members, close);
    }
  }

  void dict(const Dict& dict) {
    out_ += '{';
    const char* comma = "";
    for (const auto& [key, value] : dict) {
      if (left() == 0) {
        break;
      }
      out_ += comma;
      comma = ", ";
      print(key);
      out_ += ": ";
      print(value);
    }
    out_ += '}';
  }

  std::string& out_;
  const std::size_t limit_;
};

// For messages: at most `limit` bytes, and "..." where more was cut off.
std::string excerpt(const Value& value, std::size_t limit = 80) {
  std::string text;
  Printer(text, limit).print(value);
  if (text.size() > limit) {
    while ((static_cast<unsigned char>(text[limit]) & 0xC0) == 0x80) {  // not within a character
      --limit;
    }
    text.resize(limit);
    text += "...";
  }
  return text;
}

// --- order -----------------------------------------------------------------------------------------

template <typename T>
std::weak_ordering order(std::span<const T* const> a, std::span<const T* const> b) {
  return std::lexicographical_compare_three_way(a.begin(), a.end(), b.begin(), b.end(),
                                                [](const T* x, const T* y) { return *x <=> *y; });
}

// In sorted order, for what has none of its own.
template <typename T>
std::vector<const T*> sorted(const std::vector<T>& items) {
  std::vector<const T*> pointers;
  pointers.reserve(items.size());
  for (const T& item : items) {
    pointers.push_back(&item);
  }
  std::sort(pointers.begin(), pointers.end(), [](const T* a, const T* b) { return *a < *b; });
  return pointers;
}

std::weak_ordering order(double a, double b) { return std::weak_order(a, b); }
std::weak_ordering order(const Complex& a, const Complex& b) {
  const auto real = order(a.real, b.real);
  return real != 0 ? real : order(a.imag, b.imag);
}
std::weak_ordering order(const std::vector<Value>& a, const std::vector<Value>& b) {
  return std::lexicographical_compare_three_way(a.begin(), a.end(), b.begin(), b.end());
}
template <typename T>
std::weak_ordering order_unordered(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.size() != b.size()) {
    return a.size() <=> b.size();
  }
  return order<T>(sorted(a), sorted(b));
}

}  // namespace

// --- BigInt ----------------------------------------------------------------------------------------

BigInt::BigInt(std::string_view decimal) {
  const bool negative = !decimal.empty() && decimal.front() == '-';
  std::string_view digits = decimal.substr(negative ? 1 : 0);
  if (digits.empty() || !std::all_of(digits.begin(), digits.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    throw DataFormatError("not a decimal integer: " + excerpt(std::string(decimal.substr(0, 100))));
  }
  digits.remove_prefix(std::min(digits.find_first_not_of('0'), digits.size() - 1));
  if (negative && digits != "0") {
    decimal_ = '-';
  }
  decimal_ += digits;
}

std::strong_ordering operator<=>(const BigInt& a, const BigInt& b) {
  const bool negative = a.decimal_.front() == '-';
  if (negative != (b.decimal_.front() == '-')) {
    return negative ? std::strong_ordering::less : std::strong_ordering::greater;
  }
  const auto& smaller = negative ? b.decimal_ : a.decimal_;
  const auto& larger = negative ? a.decimal_ : b.decimal_;
  const auto by_length = smaller.size() <=> larger.size();
  return by_length != 0 ? by_length : smaller <=> larger;
}

// --- Dict ------------------------------------------------------------------------------------------

const Value* Dict::find(const Value& key) const {
  const auto found = std::find_if(rbegin(), rend(), [&](const auto& pair) { return pair.first == key; });
  return found == rend() ? nullptr : &found->second;
}

Value* Dict::find(const Value& key) { return const_cast<Value*>(std::as_const(*this).find(key)); }

const Value& Dict::at(const Value& key) const {
  if (const Value* value = find(key)) {
    return *value;
  }
  List keys;
  for (std::size_t i = 0; i < size() && i < 20; ++i) {  // as many as the excerpt can show
    keys.push_back(data()[i].first);
  }
  throw DataFormatError("no key " + excerpt(key) + " in a dict of " + std::to_string(size()) +
                        " keys: " + excerpt(keys));
}

Value& Dict::operator[](const Value& key) {
  if (Value* value = find(key)) {
    return *value;
  }
  return emplace_back(key, Value()).second;
}

// --- Value -----------------------------------------------------------------------------------------

Value::Value(BigInt integer) {
  std::int64_t small = 0;
  const std::string& decimal = integer.decimal();
  if (std::from_chars(decimal.data(), decimal.data() + decimal.size(), small).ec == std::errc()) {
    data_ = small;
  } else {
    data_ = std::move(integer);
  }
}

const Value& Value::operator[](const Value& key) const {
  if (const auto* dict = get_if<Dict>()) {
    return dict->at(key);
  }
  if (type() != Type::kList && type() != Type::kTuple) {
    throw DataFormatError("no item " + excerpt(key) + ": wanted dict, list or tuple, found " +
                          std::string(type_name(type())) + ' ' + excerpt(*this));
  }
  const auto& items = detail::sequence_items(*this);
  const auto index = key.as<std::int64_t>();
  const auto size = static_cast<std::int64_t>(items.size());
  if (index < -size || index >= size) {
    throw DataFormatError("index " + std::to_string(index) + " out of range of a " + std::string(type_name(type())) +
                          " of " + std::to_string(size) + " items");
  }
  return items[static_cast<std::size_t>(index < 0 ? index + size : index)];
}

std::weak_ordering operator<=>(const Value& a, const Value& b) {
  if (a.type() != b.type()) {
    return a.type() <=> b.type();
  }
  switch (a.type()) {
    case Type::kNone: break;
    case Type::kBool: return *a.get_if<bool>() <=> *b.get_if<bool>();
    case Type::kInt: return *a.get_if<std::int64_t>() <=> *b.get_if<std::int64_t>();
    case Type::kBigInt: return *a.get_if<BigInt>() <=> *b.get_if<BigInt>();
    case Type::kFloat: return order(*a.get_if<double>(), *b.get_if<double>());
    case Type::kComplex: return order(*a.get_if<Complex>(), *b.get_if<Complex>());
    case Type::kBytes: return *a.get_if<Bytes>() <=> *b.get_if<Bytes>();
    case Type::kString: return *a.get_if<std::string>() <=> *b.get_if<std::string>();
    case Type::kList: return order(*a.get_if<List>(), *b.get_if<List>());
    case Type::kTuple: return order(*a.get_if<Tuple>(), *b.get_if<Tuple>());
    case Type::kSet: return order_unordered<Value>(*a.get_if<Set>(), *b.get_if<Set>());
    case Type::kFrozenSet: return order_unordered<Value>(*a.get_if<FrozenSet>(), *b.get_if<FrozenSet>());
    case Type::kDict: return order_unordered<std::pair<Value, Value>>(*a.get_if<Dict>(), *b.get_if<Dict>());
    case Type::kChannel: return a.get_if<ChannelRef>()->get() <=> b.get_if<ChannelRef>()->get();
  }
  return std::weak_ordering::equivalent;
}

bool operator==(const Value& a, const Value& b) { return (a <=> b) == 0; }

std::ostream& operator<<(std::ostream& out, const Value& value) { return out << to_string(value); }

std::string to_string(const Value& value) {
  std::string text;
  Printer(text, std::numeric_limits<std::size_t>::max()).print(value);
  return text;
}

std::string_view type_name(Value::Type type) {
  switch (type) {
    case Type::kNone: return "None";
    case Type::kBool: return "bool";
    case Type::kInt:
    case Type::kBigInt: return "int";
    case Type::kFloat: return "float";
    case Type::kComplex: return "complex";
    case Type::kBytes: return "bytes";
    case Type::kString: return "str";
    case Type::kList: return "list";
    case Type::kTuple: return "tuple";
    case Type::kSet: return "set";
    case Type::kFrozenSet: return "frozenset";
    case Type::kDict: return "dict";
    case Type::kChannel: return "Channel";
  }
  return "?";
}

// --- conversions -----------------------------------------------------------------------------------

namespace detail {

void throw_unexpected(std::string_view wanted, const Value& found) {
  std::string what = "wanted ";
  what.append(wanted).append(", found ").append(type_name(found.type()));
  if (!found.is_none()) {
    what.append(" ").append(excerpt(found));
  }
  throw DataFormatError(what);
}

std::int64_t to_signed(const Value& value, std::int64_t min, std::int64_t max) {
  const auto* number = value.get_if<std::int64_t>();
  if (number == nullptr || *number < min || *number > max) {
    throw_unexpected("int from " + std::to_string(min) + " to " + std::to_string(max), value);
  }
  return *number;
}

std::uint64_t to_unsigned(const Value& value, std::uint64_t max) {
  std::uint64_t number = 0;
  bool fits = false;
  if (const auto* small = value.get_if<std::int64_t>()) {
    number = static_cast<std::uint64_t>(*small);
    fits = *small >= 0;
  } else if (const auto* big = value.get_if<BigInt>()) {
    const std::string& decimal = big->decimal();
    fits = std::from_chars(decimal.data(), decimal.data() + decimal.size(), number).ec == std::errc();
  }
  if (!fits || number > max) {
    throw_unexpected("int from 0 to " + std::to_string(max), value);
  }
  return number;
}

double to_double(const Value& value) {
  if (const auto* number = value.get_if<double>()) {
    return *number;
  }
  if (const auto* number = value.get_if<std::int64_t>()) {
    return static_cast<double>(*number);
  }
  double number = 0;
  const auto* big = value.get_if<BigInt>();
  if (big == nullptr ||
      std::from_chars(big->decimal().data(), big->decimal().data() + big->decimal().size(), number).ec != std::errc()) {
    throw_unexpected("float", value);
  }
  return number;
}

Complex to_complex(const Value& value) {
  if (const auto* number = value.get_if<Complex>()) {
    return *number;
  }
  if (value.type() != Type::kFloat && value.type() != Type::kInt && value.type() != Type::kBigInt) {
    throw_unexpected("complex", value);
  }
  return {to_double(value), 0};
}

const std::vector<Value>& sequence_items(const Value& value) {
  if (const auto* list = value.get_if<List>()) {
    return *list;
  }
  if (const auto* tuple = value.get_if<Tuple>()) {
    return *tuple;
  }
  throw_unexpected("list or tuple", value);
}

const std::vector<Value>& sequence_items(const Value& value, std::size_t size) {
  const auto& items = sequence_items(value);
  if (items.size() != size) {
    throw_unexpected("list or tuple of " + std::to_string(size) + " items", value);
  }
  return items;
}

const std::vector<Value>& set_items(const Value& value) {
  if (const auto* set = value.get_if<Set>()) {
    return *set;
  }
  if (const auto* set = value.get_if<FrozenSet>()) {
    return *set;
  }
  throw_unexpected("set", value);
}

Value from_unsigned(std::uint64_t number) {
  if (number <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    return static_cast<std::int64_t>(number);
  }
  return BigInt(std::to_string(number));
}

}  // namespace detail

}  // namespace execnet
