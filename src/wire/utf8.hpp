// Whether bytes are UTF-8 as Python understands it: shortest forms only, no surrogates, up to U+10FFFF.
#pragma once

#include <string_view>

namespace execnet::wire {

bool is_utf8(std::string_view bytes);

}  // namespace execnet::wire
