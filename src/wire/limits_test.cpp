#include "wire/limits.hpp"

#include <gtest/gtest.h>

#include <string>

namespace execnet {
namespace {

std::string refusal(const std::string& bytes, LoadLimits limits) {
  try {
    loads(bytes, {}, limits);
  } catch (const LoadError& error) {
    return error.what();
  }
  return "loaded";
}

// The value has exactly so many items.
void expect_items(const Value& value, std::size_t items) {
  const std::string bytes = dumps(value);
  EXPECT_EQ(loads(bytes, {}, {.max_items = items}), value);
  EXPECT_NE(refusal(bytes, {.max_items = items - 1}).find("more than " + std::to_string(items - 1) + " items"),
            std::string::npos)
      << to_string(value);
}

TEST(LoadLimits, CountItemsAtAllDepths) {
  expect_items(1, 1);
  expect_items("text", 1);
  expect_items(List{}, 1);
  expect_items(List{1, 2, 3}, 4);
  expect_items(List{List{List{}}, List{7}}, 5);
  expect_items(List{List{List{List{1}}}}, 5);
  expect_items(Tuple{List{}, 1, List{2}, 3}, 6);
  expect_items(Dict{{1, 2}, {"a", List{1}}}, 6);
  expect_items(Dict{{Tuple{1, 2}, Dict{}}}, 5);
  expect_items(Set{1, 2}, 3);
  expect_items(List{Complex{1, 2}, 2.5, true, Value(), Bytes("x"), FrozenSet{}, BigInt("123456789012345678901")}, 8);
}

TEST(LoadLimits, AreLookedAtBeforeAnythingIsMade) {
  std::string dicts(1'000'000, 'J');
  EXPECT_EQ(refusal("\x02" + dicts + "@" + std::string("\x00\x0f\x42\x40", 4) + "Q", {.max_items = 1000}),
            "more than 1000 items at byte 1001");
  std::string lists;  // each on the one before, where an index could be
  for (int i = 0; i < 1000; ++i) {
    lists += std::string("K\0\0\0\0", 5);
  }
  EXPECT_EQ(refusal("\x02" + lists, {.max_items = 999}), "more than 999 items at byte 5001");
  EXPECT_EQ(refusal("\x02" + lists + "Q", {.max_items = 1000}),
            "the value ends with 1000 items instead of 1 at byte 5001");
}

TEST(LoadLimits, LeaveWhatIsNoValueToTheDecoder) {
  for (const char* bytes :
       {"\x02", "\x02?", "\x02P", "\x02N\x7f\xff\xff\xff", "\x02@\x7f\xff\xff\xff", "\x02LP", "\x02LLQ"}) {
    EXPECT_EQ(refusal(bytes, {.max_items = 2}), refusal(bytes, {})) << bytes;
    EXPECT_NE(refusal(bytes, {}), "loaded");
  }
}

TEST(LoadLimits, OfBytesAreOfTheWholeInput) {
  const std::string bytes = dumps("abc");
  EXPECT_EQ(loads(bytes, {}, {.max_bytes = bytes.size()}), Value("abc"));
  EXPECT_EQ(refusal(bytes, {.max_bytes = bytes.size() - 1}), "more than 9 bytes at byte 9");
  EXPECT_EQ(load_first(bytes + bytes, {}, {.max_items = 1}).size, bytes.size()) << "the first value only";
}

}  // namespace
}  // namespace execnet
