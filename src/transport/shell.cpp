#include "transport/shell.hpp"

#include <execnet/error.hpp>

namespace execnet::transport {
namespace {

constexpr std::string_view kNeedNoQuotes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+:,./-_";
constexpr std::string_view kBlanks = " \t\r\n";

}  // namespace

std::string shell_quote(std::string_view word) {
  if (!word.empty() && word.find_first_not_of(kNeedNoQuotes) == std::string_view::npos) {
    return std::string(word);
  }
  // Put single quotes around everything except characters that some shell treats specially between them: ' itself,
  // the backslash (fish), the exclamation mark (csh). These are written outside of the quotes, behind a backslash,
  // where all shells agree.
  std::string result = "'";
  for (const char c : word) {
    if (c == '\'' || c == '\\' || c == '!') {
      result.append("'\\").append(1, c).append("'");
    } else {
      result.push_back(c);
    }
  }
  return result + "'";
}

std::vector<std::string> shell_split(std::string_view text) {
  const auto fail = [&](const char* what) { throw SpecError(std::string(what) + " in \"" + std::string(text) + '"'); };
  std::vector<std::string> words;
  bool in_word = false;
  char quote = '\0';
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (quote == '\0' && kBlanks.find(c) != std::string_view::npos) {
      in_word = false;
      continue;
    }
    if (!in_word) {
      words.emplace_back();
      in_word = true;
    }
    if (quote == '\0' && (c == '\'' || c == '"')) {
      quote = c;
    } else if (c == quote) {
      quote = '\0';
    } else if (c == '\\' && quote != '\'') {
      if (++at == text.size()) {
        fail("nothing after the backslash");
      }
      // Between double quotes a backslash stands for itself, unless it protects a special character.
      if (quote == '"' && std::string_view("\"\\$`").find(text[at]) == std::string_view::npos) {
        words.back().push_back('\\');
      }
      words.back().push_back(text[at]);
    } else {
      words.back().push_back(c);
    }
  }
  if (quote != '\0') {
    fail("no closing quote");
  }
  return words;
}

}  // namespace execnet::transport
