#include "base/printable.hpp"

#include <gtest/gtest.h>

namespace execnet::base {
namespace {

TEST(Printable, WhatATerminalWouldObeyIsShown) {
  EXPECT_EQ(printable("\x1b[2J\x1b]0;title\x07"), R"(\x1b[2J\x1b]0;title\x07)");
  EXPECT_EQ(printable(std::string_view("a\0b", 3)), R"(a\x00b)");
  EXPECT_EQ(printable("good\rbad \b\b\x7f\v\f"), R"(good\x0dbad \x08\x08\x7f\x0b\x0c)");
  EXPECT_EQ(printable("\u009b31m \u0080\u009f"), R"(\x9b31m \x80\x9f)") << "C1, which some terminals obey, too";
  EXPECT_EQ(printable("\x9b"
                      "31m"),
            "\uFFFD31m")
      << "and as a byte, which is no UTF-8";
}

TEST(Printable, WhatTurnsTheOrderOfTextAroundIsShown) {
  EXPECT_EQ(printable("\u202a\u202b\u202c\u202d\u202e"), R"(\u202a\u202b\u202c\u202d\u202e)");
  EXPECT_EQ(printable("\u2066\u2067\u2068\u2069"), R"(\u2066\u2067\u2068\u2069)");
}

TEST(Printable, OtherTextStaysAsItIs) {
  for (const char* text :
       {"", "Traceback (most recent call last):\n\tline\n", "caf\u00e9 \u00a0\u00bf", "\u05e9\u05dc\u05d5\u05dd \u200f",
        "\U0001F469\u200D\U0001F680", "\u2029\u2065\u206a\u202f", R"(\x1b \u202e)"}) {
    EXPECT_EQ(printable(text), text);
  }
  EXPECT_EQ(printable(printable("\x1b")), R"(\x1b)") << "once is enough";
}

TEST(Printable, TheEndOfALineIsANewline) {
  EXPECT_EQ(printable("one\r\ntwo\r\r\n\r"), "one\ntwo\n\\x0d") << "as ssh ends its lines";
}

TEST(Printable, WhatIsNoUtf8IsReplaced) {
  EXPECT_EQ(printable("caf\xe9 \xc2"), "caf\uFFFD \uFFFD");
  EXPECT_EQ(printable("\xe2\x80"), "\uFFFD\uFFFD");
}

}  // namespace
}  // namespace execnet::base
