// What a dumped value may ask for, looked at before any of it is made. Any thread.
#pragma once

#include <cstddef>
#include <string_view>

#include <execnet/dump.hpp>

namespace execnet::wire {

// Throws LoadError if the value that begins at `start` is over the limits. Bytes that are no value are left for the
// decoder to complain about: where it does, nothing over the limits has been made.
void check_limits(std::string_view bytes, std::size_t start, const LoadLimits& limits);

}  // namespace execnet::wire
