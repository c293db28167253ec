// Values as bytes: the execnet dump format, version 2. docs/wire_format.md describes it.
//
// Any thread may call these functions.
#pragma once

#include <cstddef>
#include <limits>
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

// Whether a channel can carry the value: all that dumps() takes, and channels, which go over channels of their own
// gateway. Takes as long as dumps() does.
//   channel.send(can_send(value) ? value : Value(to_string(value)));
EXECNET_EXPORT bool can_send(const Value& value);

// What bytes may ask for that somebody else has made. A value can take 80 times the memory of its bytes (empty
// dicts, in Python), and keys that collide take time that grows with the square of their number: docs/dumps.md.
struct LoadLimits {
  std::size_t max_bytes = std::numeric_limits<std::size_t>::max();  // of the input, version byte included
  std::size_t max_items = std::numeric_limits<std::size_t>::max();  // at all depths; a dict's keys count, too
};

// What dumps() has written; nothing may follow it. Throws LoadError, which carries the offset, and does so before
// anything is made of bytes that are over the limits.
EXECNET_EXPORT Value loads(std::string_view bytes, StringConfig strings = {}, LoadLimits limits = {});

struct Loaded {
  Value value;
  std::size_t size = 0;  // bytes that the value took
};

// The first of several dumped values that follow each other; max_bytes is about all of them. Throws LoadError.
EXECNET_EXPORT Loaded load_first(std::string_view bytes, StringConfig strings = {}, LoadLimits limits = {});

}  // namespace execnet
