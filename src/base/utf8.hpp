// UTF-8 as Python understands it: shortest forms only, no surrogates, up to U+10FFFF. Any thread.
#pragma once

#include <string>
#include <string_view>

namespace execnet::base {

bool is_utf8(std::string_view bytes);

// The bytes as UTF-8, for messages. Each byte that is not valid UTF-8 becomes U+FFFD.
//   to_utf8("caf\xe9") == "caf\uFFFD"
std::string to_utf8(std::string_view bytes);

}  // namespace execnet::base
