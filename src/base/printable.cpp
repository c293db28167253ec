#include "base/printable.hpp"

#include <cstddef>

#include "base/utf8.hpp"

namespace execnet::base {
namespace {

constexpr char kHex[] = "0123456789abcdef";

std::string escape(unsigned char byte) { return std::string("\\x") + kHex[byte >> 4] + kHex[byte & 15]; }

// U+0080 to U+009F are C2 80 to C2 9F.
bool is_c1(std::string_view text) {
  return text.size() >= 2 && text[0] == '\xc2' && static_cast<unsigned char>(text[1]) < 0xa0;
}

// U+202A to U+202E and U+2066 to U+2069: E2 80 AA to E2 80 AE, E2 81 A6 to E2 81 A9.
bool is_override(std::string_view text) {
  if (text.size() < 3 || text[0] != '\xe2') {
    return false;
  }
  const auto last = static_cast<unsigned char>(text[2]);
  return (text[1] == '\x80' && last >= 0xaa && last <= 0xae) || (text[1] == '\x81' && last >= 0xa6 && last <= 0xa9);
}

bool is_control(char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == '\x7f'; }

}  // namespace

std::string printable(std::string_view bytes) {
  const std::string text = to_utf8(bytes);
  std::string shown;
  shown.reserve(text.size());
  for (std::string_view rest = text; !rest.empty();) {
    std::size_t length = 1;
    if (is_c1(rest)) {
      shown += escape(static_cast<unsigned char>(rest[1]));
      length = 2;
    } else if (is_override(rest)) {
      const auto last = static_cast<unsigned char>(rest[2]);
      shown += "\\u20";
      shown += rest[1] == '\x80' ? "2" : "6";
      shown += kHex[last & 15];
      length = 3;
    } else if (rest[0] == '\r' && rest.find_first_not_of('\r') != rest.npos &&
               rest[rest.find_first_not_of('\r')] == '\n') {
      // Goes.
    } else if (is_control(rest[0])) {
      shown += escape(static_cast<unsigned char>(rest[0]));
    } else {
      shown += rest[0];
    }
    rest.remove_prefix(length);
  }
  return shown;
}

}  // namespace execnet::base
