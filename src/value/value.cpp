#include <execnet/value.hpp>

#include <algorithm>
#include <charconv>
#include <span>
#include <utility>

#include <execnet/error.hpp>

#include "value/value_text.hpp"

namespace execnet {

namespace {

using Type = Value::Type;
using value::excerpt;

// --- order -----------------------------------------------------------------------------------------

template <typename T>
std::weak_ordering order(std::span<const T* const> a, std::span<const T* const> b) {
  return std::lexicographical_compare_three_way(a.begin(), a.end(), b.begin(), b.end(),
                                                [](const T* x, const T* y) { return *x <=> *y; });
}

// Sorted, for types that have no order of their own.
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

}  // namespace execnet
