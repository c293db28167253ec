// Numbers as the dump format has them: most significant byte first.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace execnet::wire {

// A loop over the bytes would mean the same, but compiles to an instruction for each byte.
inline std::uint32_t to_big_endian(std::uint32_t number) {
  return std::endian::native == std::endian::little ? __builtin_bswap32(number) : number;
}
inline std::uint64_t to_big_endian(std::uint64_t number) {
  return std::endian::native == std::endian::little ? __builtin_bswap64(number) : number;
}

// The number of that size at `at`.
template <typename Unsigned>
Unsigned get_big_endian(const char* at) {
  Unsigned number;
  std::memcpy(&number, at, sizeof number);
  return to_big_endian(number);
}

// Returns the end of what it has written.
template <typename Unsigned>
char* put_big_endian(char* at, Unsigned number) {
  number = to_big_endian(number);
  std::memcpy(at, &number, sizeof number);
  return at + sizeof number;
}

}  // namespace execnet::wire
