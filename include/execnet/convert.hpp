// The conversions of execnet::Convert for ordinary C++ types. Included by value.hpp.
//
// Containers are recognised by their shape, not by their name: this covers std::vector, std::deque,
// absl::flat_hash_map and the like without including any of them.
#pragma once

#include <execnet/value.hpp>

namespace execnet {

namespace detail {

// "wanted <wanted>, found int 300"
[[noreturn]] EXECNET_EXPORT void throw_unexpected(std::string_view wanted, const Value& found);
EXECNET_EXPORT std::int64_t to_signed(const Value& value, std::int64_t min, std::int64_t max);
EXECNET_EXPORT std::uint64_t to_unsigned(const Value& value, std::uint64_t max);
EXECNET_EXPORT double to_double(const Value& value);
EXECNET_EXPORT Complex to_complex(const Value& value);
// The items of a list or tuple.
EXECNET_EXPORT const std::vector<Value>& sequence_items(const Value& value);
// The same; there must be `size` of them.
EXECNET_EXPORT const std::vector<Value>& sequence_items(const Value& value, std::size_t size);
// The items of a set or frozenset.
EXECNET_EXPORT const std::vector<Value>& set_items(const Value& value);
EXECNET_EXPORT Value from_unsigned(std::uint64_t number);

// A plain `char` could be a number or text, so say which: static_cast<int>(c) or std::string(1, c).
template <typename T>
concept Integer = std::integral<T> && !std::same_as<T, bool> && !std::same_as<T, char> && !std::same_as<T, wchar_t> &&
                  !std::same_as<T, char8_t> && !std::same_as<T, char16_t> && !std::same_as<T, char32_t>;

template <typename T>
concept Text = std::convertible_to<const T&, std::string_view> && !std::same_as<T, std::string>;

template <typename T>
concept ComplexLike = !std::same_as<T, Complex> && requires(const T& item, typename T::value_type part) {
  requires std::floating_point<typename T::value_type>;
  { item.real() } -> std::convertible_to<double>;
  { item.imag() } -> std::convertible_to<double>;
  T(part, part);
};

template <typename T>
concept OptionalLike = requires(const T& item) {
  typename T::value_type;
  { item.has_value() } -> std::same_as<bool>;
  *item;
};

template <typename T>
concept RangeLike = !ValueAlternative<T> && !Text<T> && requires(const T& range) {
  typename T::value_type;
  requires !std::same_as<typename T::value_type, T>;  // a path is a range of paths
  range.begin() != range.end();
};

template <typename T>
concept MapLike = RangeLike<T> && requires {
  typename T::key_type;
  typename T::mapped_type;
};

template <typename T>
concept SetLike = RangeLike<T> && !MapLike<T> && requires { typename T::key_type; };

template <typename T>
concept SequenceLike = RangeLike<T> && !MapLike<T> && !SetLike<T>;

template <typename T>
concept ByteSequence =
    SequenceLike<T> && std::same_as<std::remove_cv_t<typename T::value_type>, std::byte> && requires(const T& range) {
      { range.data() } -> std::convertible_to<const std::byte*>;
      range.size();
    };

template <typename T>
concept Sized = requires { std::tuple_size<T>::value; };

template <typename T>
concept Appendable = requires(T& container, typename T::value_type item) { container.push_back(std::move(item)); };

// std::pair, std::tuple, or another type that is not a range and can be taken apart like them.
template <typename T>
concept TupleLike = Sized<T> && !RangeLike<T>;

template <typename T, typename Index>
inline constexpr bool kAllToValue = false;
template <typename T, std::size_t... I>
inline constexpr bool kAllToValue<T, std::index_sequence<I...>> = (ToValue<std::tuple_element_t<I, T>> && ...);

}  // namespace detail

template <>
struct Convert<Value> {
  static Value to(const Value& value) { return value; }
  static Value from(const Value& value) { return value; }
};

template <ValueAlternative T>
  requires(!std::same_as<T, std::int64_t> && !std::same_as<T, double> && !std::same_as<T, Complex>)
struct Convert<T> {
  static Value to(const T& item) { return item; }
  static T from(const Value& value) {
    if (const T* item = value.get_if<T>()) {
      return *item;
    }
    detail::throw_unexpected(type_name(Value(T{}).type()), value);
  }
};

template <>
struct Convert<BigInt> {
  static Value to(const BigInt& integer) { return integer; }
  static BigInt from(const Value& value) {
    if (const auto* big = value.get_if<BigInt>()) {
      return *big;
    }
    return BigInt(std::to_string(value.as<std::int64_t>()));
  }
};

template <detail::Integer T>
struct Convert<T> {
  static Value to(T number) {
    if constexpr (std::signed_integral<T>) {
      return static_cast<std::int64_t>(number);
    } else {
      return detail::from_unsigned(number);
    }
  }
  static T from(const Value& value) {
    constexpr auto kBits = sizeof(T) * 8;
    if constexpr (std::signed_integral<T>) {
      constexpr auto kMax = static_cast<std::int64_t>((std::uint64_t{1} << (kBits - 1)) - 1);
      return static_cast<T>(detail::to_signed(value, -kMax - 1, kMax));
    } else {
      return static_cast<T>(detail::to_unsigned(value, static_cast<T>(~T{0})));
    }
  }
};

template <std::floating_point T>
struct Convert<T> {
  static Value to(T number) { return static_cast<double>(number); }
  static T from(const Value& value) {
    const double number = detail::to_double(value);
    const T result = static_cast<T>(number);
    if (result - result != 0 && number - number == 0) {  // was finite and is not any more
      detail::throw_unexpected("float of single precision", value);
    }
    return result;
  }
};

template <>
struct Convert<Complex> {
  static Value to(const Complex& number) { return number; }
  static Complex from(const Value& value) { return detail::to_complex(value); }
};

template <detail::ComplexLike T>
struct Convert<T> {
  static Value to(const T& number) {
    return Complex{static_cast<double>(number.real()), static_cast<double>(number.imag())};
  }
  static T from(const Value& value) {
    const Complex number = detail::to_complex(value);
    return T(Convert<typename T::value_type>::from(number.real), Convert<typename T::value_type>::from(number.imag));
  }
};

// String literals, const char*, std::string_view. One way only: a view into a value would dangle.
template <detail::Text T>
struct Convert<T> {
  static Value to(std::string_view text) { return std::string(text); }
};

template <detail::OptionalLike T>
struct Convert<T> {
  using Item = typename T::value_type;
  static Value to(const T& item)
    requires ToValue<Item>
  {
    return item.has_value() ? Value(*item) : Value();
  }
  static T from(const Value& value)
    requires FromValue<Item>
  {
    return value.is_none() ? T() : T(value.as<Item>());
  }
};

template <detail::MapLike T>
struct Convert<T> {
  using Key = typename T::key_type;
  using Mapped = typename T::mapped_type;
  static Value to(const T& map)
    requires(ToValue<Key> && ToValue<Mapped>)
  {
    Dict dict;
    for (const auto& [key, mapped] : map) {
      dict.emplace_back(key, mapped);
    }
    return dict;
  }
  static T from(const Value& value)
    requires(FromValue<Key> && FromValue<Mapped>)
  {
    const auto* dict = value.get_if<Dict>();
    if (dict == nullptr) {
      detail::throw_unexpected("dict", value);
    }
    T map;
    for (const auto& [key, mapped] : *dict) {
      map.insert_or_assign(key.template as<Key>(), mapped.template as<Mapped>());
    }
    return map;
  }
};

template <detail::SetLike T>
struct Convert<T> {
  using Item = typename T::key_type;
  static Value to(const T& range)
    requires ToValue<Item>
  {
    Set set;
    for (const Item& item : range) {
      set.emplace_back(item);
    }
    return set;
  }
  static T from(const Value& value)
    requires FromValue<Item>
  {
    T set;
    for (const Value& item : detail::set_items(value)) {
      set.insert(item.as<Item>());
    }
    return set;
  }
};

template <detail::ByteSequence T>
struct Convert<T> {
  static Value to(const T& bytes) {
    return Bytes(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  static T from(const Value& value)
    requires std::constructible_from<T, const std::byte*, const std::byte*> && (!std::is_trivially_copyable_v<T>)
  {
    const auto* bytes = value.get_if<Bytes>();
    if (bytes == nullptr) {
      detail::throw_unexpected("bytes", value);
    }
    const auto* first = reinterpret_cast<const std::byte*>(bytes->data());
    return T(first, first + bytes->size());
  }
};

template <detail::SequenceLike T>
  requires(!detail::ByteSequence<T>)
struct Convert<T> {
  using Item = std::remove_cv_t<typename T::value_type>;
  static Value to(const T& range)
    requires ToValue<Item>
  {
    List list;
    if constexpr (requires { range.size(); }) {
      list.reserve(range.size());
    }
    for (const Item& item : range) {
      list.emplace_back(item);
    }
    return list;
  }
  static T from(const Value& value)
    requires(FromValue<Item> && detail::Appendable<T>)
  {
    T container;
    for (const Value& item : detail::sequence_items(value)) {
      container.push_back(item.as<Item>());
    }
    return container;
  }
  static T from(const Value& value)
    requires(FromValue<Item> && detail::Sized<T>)
  {
    const auto& items = detail::sequence_items(value, std::tuple_size_v<T>);
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
      return T{items[I].template as<Item>()...};
    }(std::make_index_sequence<std::tuple_size_v<T>>());
  }
};

template <detail::TupleLike T>
struct Convert<T> {
  using Indices = std::make_index_sequence<std::tuple_size_v<T>>;
  static Value to(const T& items)
    requires detail::kAllToValue<T, Indices>
  {
    using std::get;
    return [&]<std::size_t... I>(std::index_sequence<I...>) { return Tuple{Value(get<I>(items))...}; }(Indices());
  }
  static T from(const Value& value) {
    const auto& items = detail::sequence_items(value, std::tuple_size_v<T>);
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
      return T(items[I].template as<std::tuple_element_t<I, T>>()...);
    }(Indices());
  }
};

}  // namespace execnet
