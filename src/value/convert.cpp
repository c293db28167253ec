// The conversions behind Value::as(), Value(T) and the like; see execnet/convert.hpp.
#include <charconv>
#include <limits>
#include <string>

#include <execnet/error.hpp>
#include <execnet/value.hpp>

#include "value/value_text.hpp"

namespace execnet {

using Type = Value::Type;
using value::excerpt;

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
