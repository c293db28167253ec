// Values as bytes: the execnet dump format, version 2. docs/wire_format.md describes it.
//
// Any thread may call these functions.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <execnet/error.hpp>
#include <execnet/value.hpp>

namespace execnet {

// How strings written by another version of Python are loaded.
struct StringConfig {
  bool py2str_as_py3str = true;   // Python 2 `str`: as str, by latin-1; else as bytes
  bool py3str_as_py2str = false;  // Python 3 `str`: as bytes of its UTF-8; else as str
  friend bool operator==(const StringConfig&, const StringConfig&) = default;
};

// Throws DumpError, with the path to the item, for a channel, a string that is not UTF-8, and more
// than 1000 levels of nesting.
//   dumps(List{1, "a"})
EXECNET_EXPORT std::string dumps(const Value& value);

// The value of bytes that dumps() has written. Nothing may follow them. Throws LoadError, which carries the offset.
EXECNET_EXPORT Value loads(std::string_view bytes, StringConfig strings = {});

struct Loaded {
  Value value;
  std::size_t size = 0;  // bytes that the value took
};

// The first of several dumped values in a row. Throws LoadError.
EXECNET_EXPORT Loaded load_first(std::string_view bytes, StringConfig strings = {});

}  // namespace execnet
