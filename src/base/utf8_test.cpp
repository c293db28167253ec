#include "base/utf8.hpp"

#include <gtest/gtest.h>

namespace execnet::base {
namespace {

constexpr const char* kReplacement = "\xef\xbf\xbd";

TEST(Utf8, StaysWhatItIs) {
  for (const std::string text : {"", "plain", "caf\u00e9 \u20ac \U0001F600"}) {
    EXPECT_EQ(to_utf8(text), text);
  }
}

TEST(Utf8, WhatIsNoneIsReplacedByteByByte) {
  const std::string r = kReplacement;
  EXPECT_EQ(to_utf8("caf\xe9 closed"), "caf" + r + " closed");
  EXPECT_EQ(to_utf8("\xe2\x82"), r + r);          // cut
  EXPECT_EQ(to_utf8("\xed\xa0\x80"), r + r + r);  // a surrogate
  EXPECT_EQ(to_utf8("\xc0\x80"), r + r);          // too long a form
  EXPECT_EQ(to_utf8(std::string("a\0b", 3)), std::string("a\0b", 3));
  EXPECT_TRUE(is_utf8(to_utf8("\xff\xfe\x80x\xf0\x9f")));
}

TEST(Utf8, IsCutBetweenCharacters) {
  EXPECT_EQ(whole_characters("caf\u00e9", 10), 5U);
  EXPECT_EQ(whole_characters("caf\u00e9", 5), 5U);
  EXPECT_EQ(whole_characters("caf\u00e9", 4), 3U);
  EXPECT_EQ(whole_characters("caf\u00e9", 3), 3U);
  EXPECT_EQ(whole_characters("\U0001F600", 3), 3U) << "there is nothing before it";
  EXPECT_EQ(whole_characters("ab\U0001F600", 5), 2U);
  EXPECT_EQ(whole_characters(std::string(100, '\x80'), 50), 50U) << "that is no text";
}

}  // namespace
}  // namespace execnet::base
