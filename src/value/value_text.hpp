// Values as text, in the form of Python's repr(). Any thread.
#pragma once

#include <cstddef>
#include <string>

#include <execnet/value.hpp>

namespace execnet::value {

// For error messages: at most `limit` bytes of the text, and "..." if more was cut off.
std::string excerpt(const Value& value, std::size_t limit = 80);

}  // namespace execnet::value
