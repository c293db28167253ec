#include <execnet/value.hpp>

#include <array>
#include <complex>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <sstream>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include <gtest/gtest.h>
#include <execnet/error.hpp>

namespace execnet {
namespace {

using Type = Value::Type;

// What the conversion's error says; "" if there was none.
template <typename T>
std::string conversion_error(const Value& value) {
  try {
    static_cast<void>(value.as<T>());
  } catch (const DataFormatError& error) {
    return error.what();
  }
  return "";
}

template <typename T>
T there_and_back(const T& item) {
  return Value(item).as<T>();
}

TEST(ValueTest, IsNoneByDefault) {
  EXPECT_TRUE(Value().is_none());
  EXPECT_EQ(to_string(Value()), "None");
}

TEST(ValueTest, HasTheTypeOfWhatItIsMadeOf) {
  EXPECT_EQ(Value(true).type(), Type::kBool);
  EXPECT_EQ(Value(1).type(), Type::kInt);
  EXPECT_EQ(Value(std::uint8_t{1}).type(), Type::kInt);
  EXPECT_EQ(Value(1.0F).type(), Type::kFloat);
  EXPECT_EQ(Value("a").type(), Type::kString);
  EXPECT_EQ(Value(std::string_view("a")).type(), Type::kString);
  EXPECT_EQ(Value(std::complex<float>(1, 2)).type(), Type::kComplex);
  EXPECT_EQ(Value(std::vector{std::byte{1}}).type(), Type::kBytes);
  EXPECT_EQ(Value(ChannelRef()).type(), Type::kChannel);
  static_assert(!std::convertible_to<char, Value>, "neither a number nor text");
  static_assert(!std::convertible_to<int*, Value>, "a pointer is not a bool");
}

TEST(ValueTest, LivesInContainersLikeAnInt) {
  Value a = List{1, "a", 2.5};
  Value b = a;
  (*b.get_if<List>())[0] = Dict{{"deep", Tuple{1}}};
  EXPECT_EQ(to_string(a), "[1, 'a', 2.5]");
  EXPECT_EQ(to_string(b), "[{'deep': (1,)}, 'a', 2.5]");
  const Value c = std::move(b);
  a = c;
  EXPECT_EQ(a, c);
  EXPECT_EQ((std::set<Value>{2, 1, "x", 1}.size()), 3U);
}

TEST(ValueTest, PrintsAsPythonDoes) {
  std::ostringstream out;
  out << Value(Dict{{"a", Set{1}}, {2, FrozenSet{}}, {Value(), Bytes(std::string("\0'", 2))}});
  EXPECT_EQ(out.str(), R"({'a': {1}, 2: frozenset(), None: b"\x00'"})");
  EXPECT_EQ(to_string(1e22), "1e+22");
  EXPECT_EQ(to_string(100.0), "100.0");
  EXPECT_EQ(to_string(Complex{-0.0, -1}), "(-0-1j)");
  EXPECT_EQ(to_string("\xff"), R"('\xff')");
}

TEST(ValueTest, BigIntsAreCanonical) {
  EXPECT_EQ(BigInt("-000").decimal(), "0");
  EXPECT_EQ(BigInt("-0012").decimal(), "-12");
  EXPECT_EQ(Value(BigInt("9223372036854775807")).type(), Type::kInt);
  EXPECT_EQ(Value(BigInt("-9223372036854775808")).type(), Type::kInt);
  EXPECT_EQ(Value(BigInt("9223372036854775808")).type(), Type::kBigInt);
  EXPECT_EQ(Value(BigInt("-9223372036854775809")).type(), Type::kBigInt);
  EXPECT_LT(BigInt("-100"), BigInt("-99"));
  EXPECT_LT(BigInt("-1"), BigInt("1"));
  EXPECT_LT(BigInt("99"), BigInt("100"));
  for (const char* wrong : {"", "-", "+1", " 1", "1_0", "0x1", "1e5"}) {
    EXPECT_THROW(BigInt{wrong}, DataFormatError) << wrong;
  }
}

TEST(ValueTest, EqualityIsStrictOnTypesAndBlindToTheOrderOfSetsAndDicts) {
  EXPECT_NE(Value(1), Value(1.0));
  EXPECT_NE(Value(1), Value(true));
  EXPECT_NE(Value(List{}), Value(Tuple{}));
  EXPECT_EQ(Value(Set{1, 2, "x"}), Value(Set{"x", 2, 1}));
  EXPECT_NE(Value(Set{1, 1, 2}), Value(Set{1, 2, 2}));
  EXPECT_EQ(Value(Dict{{1, 2}, {3, 4}}), Value(Dict{{3, 4}, {1, 2}}));
  EXPECT_NE(Value(Dict{{1, 2}}), Value(Dict{{1, 3}}));
  EXPECT_NE(Value(List{1, 2}), Value(List{2, 1}));
  EXPECT_EQ(Value(0.0), Value(-0.0));
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(Value(Tuple{nan}), Value(Tuple{nan}));
}

TEST(ValueTest, IsTakenApartByKeyAndIndex) {
  const Value event = Dict{{"loss", 1}, {"loss", 0.25}, {7, List{1, 2}}};
  EXPECT_EQ(event["loss"].as<double>(), 0.25) << "the last one counts";
  EXPECT_EQ(event[7][-1].as<int>(), 2);
  EXPECT_EQ(event.get_if<Dict>()->find("gain"), nullptr);
  EXPECT_THROW(
      try { static_cast<void>(event["gain"]); } catch (const DataFormatError& error) {
        EXPECT_STREQ(error.what(), "no key 'gain' in a dict of 3 keys: ['loss', 'loss', 7]");
        throw;
      },
      DataFormatError);
  EXPECT_THROW(static_cast<void>(event[7][2]), DataFormatError);
  EXPECT_THROW(static_cast<void>(event[7][-3]), DataFormatError);
  EXPECT_THROW(static_cast<void>(event[7]["x"]), DataFormatError);
  EXPECT_THROW(static_cast<void>(Value("text")[0]), DataFormatError);
}

TEST(ValueTest, DictsGrowLikeMaps) {
  Dict dict;
  dict["a"] = 1;
  dict["a"] = 2;
  dict["b"];
  EXPECT_EQ(to_string(dict), "{'a': 2, 'b': None}");
}

TEST(ConvertTest, NumbersAreCheckedForRange) {
  EXPECT_EQ(there_and_back(std::numeric_limits<std::int8_t>::min()), -128);
  EXPECT_EQ(there_and_back(std::numeric_limits<std::int64_t>::min()), std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(there_and_back(std::numeric_limits<std::uint64_t>::max()), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(there_and_back(-3LL), -3LL);
  EXPECT_EQ(conversion_error<std::uint8_t>(300), "wanted int from 0 to 255, found int 300");
  EXPECT_EQ(conversion_error<std::int8_t>(-129), "wanted int from -128 to 127, found int -129");
  EXPECT_EQ(conversion_error<unsigned>(-1), "wanted int from 0 to 4294967295, found int -1");
  EXPECT_NE(conversion_error<std::uint64_t>(BigInt("18446744073709551616")), "");
  EXPECT_NE(conversion_error<std::int64_t>(BigInt("9223372036854775808")), "");
  EXPECT_NE(conversion_error<int>(true), "");
  EXPECT_NE(conversion_error<int>(1.0), "");
  EXPECT_NE(conversion_error<bool>(1), "");
  EXPECT_EQ(Value(3).as<double>(), 3.0);
  EXPECT_EQ(Value(BigInt("100000000000000000000")).as<double>(), 1e20);
  EXPECT_EQ(Value(3).as<BigInt>().decimal(), "3");
  EXPECT_NE(conversion_error<double>(BigInt(std::string(400, '9'))), "");
  EXPECT_NE(conversion_error<float>(1e300), "");
  EXPECT_EQ(Value(std::numeric_limits<double>::infinity()).as<float>(), std::numeric_limits<float>::infinity());
  EXPECT_EQ(there_and_back(std::complex<double>(1, 2)), std::complex<double>(1, 2));
}

TEST(ConvertTest, ContainersThereAndBack) {
  const std::vector<bool> bits{true, false};
  EXPECT_EQ(there_and_back(bits), bits);
  const std::map<std::string, std::vector<int>> map{{"a", {1, 2}}, {"b", {}}};
  EXPECT_EQ(there_and_back(map), map);
  EXPECT_EQ(to_string(map), "{'a': [1, 2], 'b': []}");
  const std::unordered_map<int, std::optional<std::string>> optionals{{1, "x"}, {2, std::nullopt}};
  EXPECT_EQ(there_and_back(optionals), optionals);
  const std::set<std::string> set{"a", "b"};
  EXPECT_EQ(there_and_back(set), set);
  EXPECT_EQ(to_string(set), "{'a', 'b'}");
  EXPECT_EQ(there_and_back(std::unordered_set<int>{1}), std::unordered_set<int>{1});
  const std::tuple<int, std::string, std::pair<double, bool>> tuple{1, "a", {0.5, true}};
  EXPECT_EQ(there_and_back(tuple), tuple);
  EXPECT_EQ(to_string(tuple), "(1, 'a', (0.5, True))");
  EXPECT_EQ(there_and_back(std::array<int, 3>{1, 2, 3}), (std::array<int, 3>{1, 2, 3}));
  EXPECT_EQ(to_string(std::array<int, 2>{1, 2}), "[1, 2]");
  EXPECT_EQ(there_and_back(std::deque<std::string>{"a"}), std::deque<std::string>{"a"});
  EXPECT_EQ(there_and_back(std::vector{std::byte{7}, std::byte{0}}), (std::vector{std::byte{7}, std::byte{0}}));
  const std::array<double, 2> numbers{0.5, 1.5};
  EXPECT_EQ(to_string(std::span<const double>(numbers)), "[0.5, 1.5]");
  EXPECT_EQ(Value(Tuple{1, 2}).as<std::vector<int>>(), (std::vector{1, 2}));
  EXPECT_EQ((Value(List{1, "a"}).as<std::tuple<int, std::string>>()), std::tuple(1, "a"));
  EXPECT_EQ(Value(FrozenSet{1}).as<std::set<int>>(), std::set{1});
  EXPECT_EQ(Value(std::optional<int>()), Value());
}

TEST(ConvertTest, ErrorsNameWhatWasWantedAndWhatIsThere) {
  EXPECT_EQ(conversion_error<std::string>(5), "wanted str, found int 5");
  EXPECT_EQ(conversion_error<std::string>(Bytes("x")), "wanted str, found bytes b'x'");
  EXPECT_EQ(conversion_error<std::vector<int>>("x"), "wanted list or tuple, found str 'x'");
  EXPECT_EQ(conversion_error<double>(Value()), "wanted float, found None");
  EXPECT_EQ((conversion_error<std::pair<int, int>>(List{1})), "wanted list or tuple of 2 items, found list [1]");
  EXPECT_EQ((conversion_error<std::array<int, 3>>(Tuple{1, 2})), "wanted list or tuple of 3 items, found tuple (1, 2)");
  EXPECT_EQ((conversion_error<std::map<int, int>>(List{})), "wanted dict, found list []");
  EXPECT_EQ(conversion_error<std::set<int>>(List{1}), "wanted set, found list [1]");
  EXPECT_EQ(conversion_error<std::vector<int>>(List{1, "a"}),
            "wanted int from -2147483648 to 2147483647, found str 'a'");
  EXPECT_EQ(conversion_error<List>(Tuple{1}), "wanted list, found tuple (1,)");
}

TEST(ConvertTest, ErrorsStayShort) {
  std::string euros;
  for (int i = 0; i < 1000; ++i) {
    euros += "€";
  }
  const std::string error = conversion_error<int>(euros);
  EXPECT_LT(error.size(), 160U);
  EXPECT_TRUE(error.ends_with("€...")) << error << ": cut between characters";
}

}  // namespace

struct Point {
  int x = 0;
  int y = 0;
  friend bool operator==(const Point&, const Point&) = default;
};

template <>
struct Convert<Point> {
  static Value to(const Point& point) { return Tuple{point.x, point.y}; }
  static Point from(const Value& value) {
    const auto [x, y] = value.as<std::pair<int, int>>();
    return {x, y};
  }
};

namespace {

TEST(ConvertTest, TakesTypesOfTheUsers) {
  EXPECT_EQ(to_string(Point{1, 2}), "(1, 2)");
  const std::map<std::string, Point> points{{"a", {1, 2}}};
  EXPECT_EQ(there_and_back(points), points);
}

}  // namespace
}  // namespace execnet
