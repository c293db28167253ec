// UTF-8 as Python understands it: shortest forms only, no surrogates, up to U+10FFFF. Any thread.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace execnet::base {

bool is_utf8(std::string_view bytes);

// The bytes as UTF-8, for messages. Each byte that is not valid UTF-8 becomes U+FFFD.
//   to_utf8("caf\xe9") == "caf\uFFFD"
std::string to_utf8(std::string_view bytes);

// How many of the first `at_most` bytes there are to be without the begin of a character that goes on behind them.
//   whole_characters("caf\u00e9", 4) == 3
std::size_t whole_characters(std::string_view text, std::size_t at_most);

}  // namespace execnet::base
