#include "transport/shell.hpp"

#include <gtest/gtest.h>

#include <execnet/error.hpp>

namespace execnet::transport {
namespace {

using Words = std::vector<std::string>;

TEST(ShellQuote, LeavesPlainWordsAsTheyAre) {
  EXPECT_EQ(shell_quote("/usr/bin/python3.11"), "/usr/bin/python3.11");
  EXPECT_EQ(shell_quote("user@host"), "user@host");
}

TEST(ShellQuote, QuotesWhatAShellWouldTouch) {
  EXPECT_EQ(shell_quote(""), "''");
  EXPECT_EQ(shell_quote("a b"), "'a b'");
  EXPECT_EQ(shell_quote("~"), "'~'");
  EXPECT_EQ(shell_quote("it's"), R"('it'\''s')");
  EXPECT_EQ(shell_quote(R"(a\b!)"), R"('a'\\'b'\!'')");
}

TEST(ShellSplit, SplitsAtBlanks) {
  EXPECT_EQ(shell_split(""), Words{});
  EXPECT_EQ(shell_split(" \t\n"), Words{});
  EXPECT_EQ(shell_split("  a  b\tc "), (Words{"a", "b", "c"}));
}

TEST(ShellSplit, KnowsQuotesAndBackslashes) {
  EXPECT_EQ(shell_split("'a b' \"c d\" e\\ f"), (Words{"a b", "c d", "e f"}));
  EXPECT_EQ(shell_split("a'b'\"c\""), (Words{"abc"}));
  EXPECT_EQ(shell_split("'' \"\""), (Words{"", ""}));
  EXPECT_EQ(shell_split(R"("a\"b\\c\d" 'e\f')"), (Words{R"(a"b\c\d)", R"(e\f)"}));
  EXPECT_EQ(shell_split(R"("it's" 'say "x"')"), (Words{"it's", "say \"x\""}));
}

TEST(ShellSplit, RefusesWhatIsNotFinished) {
  EXPECT_THROW(shell_split("python 'a"), SpecError);
  EXPECT_THROW(shell_split("python \"a"), SpecError);
  EXPECT_THROW(shell_split("python \\"), SpecError);
}

TEST(ShellSplit, UndoesShellQuote) {
  for (const std::string& word : Words{"", "a", "a b", "it's", "\"", R"(\)", "a\\'b", "!", "$HOME `x`", "tab\there",
                                       "line\nbreak", "\xff\xfe", "'''", "\xc3\xa9"}) {
    EXPECT_EQ(shell_split(shell_quote(word)), Words{word});
  }
}

}  // namespace
}  // namespace execnet::transport
