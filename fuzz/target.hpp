// What the fuzz targets share. Each is a file with one LLVMFuzzerTestOneInput. libFuzzer calls it with
// inputs that it makes up (preset fuzz), and seeds_test.cpp with the seeds (all other presets).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace execnet::fuzz {

inline std::string_view text_of(const std::uint8_t* data, std::size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Ends the process unless the condition holds, even where assertions are compiled away.
inline void require(bool holds, const char* what) {
  if (!holds) {
    std::fprintf(stderr, "does not hold: %s\n", what);
    std::abort();
  }
}

}  // namespace execnet::fuzz
