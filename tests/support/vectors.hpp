// The golden bytes of tests/vectors/ for C++: the files say what their columns mean. Any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace execnet::testing {

// The lines of tests/vectors/<file> without comments, cut at " | ". Throws std::runtime_error.
std::vector<std::vector<std::string>> rows(const std::string& file);

std::string from_hex(std::string_view hex);

// Dumped values, good and bad, each with its version byte.
std::vector<std::string> dumps_seeds();
// Streams of frames: each golden header with the payload that it announces, and messages in chunks.
std::vector<std::string> frames_seeds();
// Texts of gateway specifications.
std::vector<std::string> specs_seeds();
// The seeds of the fuzz target `name` (decoder, frames, specs): the above, and inputs that once crashed it.
std::vector<std::string> seeds_of(const std::string& name);

}  // namespace execnet::testing
