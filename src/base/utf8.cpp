#include "base/utf8.hpp"

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace execnet::base {

namespace {

bool in(unsigned char byte, unsigned char low, unsigned char high) { return byte >= low && byte <= high; }

// The length of the multi-byte sequence that starts at `p`; 0 if it is not valid.
std::size_t sequence_length(const unsigned char* p, std::size_t left) {
  const auto tail = [](unsigned char byte) { return in(byte, 0x80, 0xBF); };
  if (in(p[0], 0xC2, 0xDF)) {
    return left >= 2 && tail(p[1]) ? 2 : 0;
  }
  if (in(p[0], 0xE0, 0xEF)) {
    const unsigned char low = p[0] == 0xE0 ? 0xA0 : 0x80;   // else a shorter form exists
    const unsigned char high = p[0] == 0xED ? 0x9F : 0xBF;  // else a surrogate
    return left >= 3 && in(p[1], low, high) && tail(p[2]) ? 3 : 0;
  }
  if (in(p[0], 0xF0, 0xF4)) {
    const unsigned char low = p[0] == 0xF0 ? 0x90 : 0x80;
    const unsigned char high = p[0] == 0xF4 ? 0x8F : 0xBF;  // else beyond U+10FFFF
    return left >= 4 && in(p[1], low, high) && tail(p[2]) && tail(p[3]) ? 4 : 0;
  }
  return 0;
}

}  // namespace

bool is_utf8(std::string_view bytes) {
  const auto* p = reinterpret_cast<const unsigned char*>(bytes.data());
  std::size_t left = bytes.size();
  while (left > 0) {
    if (left >= sizeof(std::uint64_t)) {  // most text is ASCII: eight at a time
      std::uint64_t eight = 0;
      std::memcpy(&eight, p, sizeof eight);
      if ((eight & 0x8080808080808080U) == 0) {
        p += sizeof eight;
        left -= sizeof eight;
        continue;
      }
    }
    const std::size_t length = *p < 0x80 ? 1 : sequence_length(p, left);
    if (length == 0) {
      return false;
    }
    p += length;
    left -= length;
  }
  return true;
}

std::string to_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const auto* p = reinterpret_cast<const unsigned char*>(bytes.data());
    const std::size_t length = *p < 0x80 ? 1 : sequence_length(p, bytes.size());
    text += length == 0 ? "\xef\xbf\xbd" : bytes.substr(0, length);
    bytes.remove_prefix(length == 0 ? 1 : length);
  }
  return text;
}

std::size_t whole_characters(std::string_view text, std::size_t at_most) {
  if (text.size() <= at_most) {
    return text.size();
  }
  constexpr std::size_t kLongest = 4;
  for (std::size_t size = at_most; size > 0 && at_most - size < kLongest; --size) {
    if ((static_cast<unsigned char>(text[size]) & 0xc0U) != 0x80U) {
      return size;
    }
  }
  return at_most;  // that is no text
}

}  // namespace execnet::base
