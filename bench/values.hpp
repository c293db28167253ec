// The values of work.py, in C++, for every measurement of encoding and decoding.
#pragma once

#include <cstdint>

#include <execnet/value.hpp>

namespace execnet::bench {

inline Value ints(std::int64_t count) {
  List list;
  for (std::int64_t i = 0; i < count; ++i) {
    list.emplace_back(i);
  }
  return list;
}

inline Value report(std::int64_t count) {
  List list;
  for (std::int64_t i = 0; i < count; ++i) {
    list.emplace_back(Dict{{"id", i},
                           {"when", "call"},
                           {"sections", List{Tuple{"out", std::string(20, 'x')}}},
                           {"ok", true},
                           {"seconds", static_cast<double>(i) / 7}});
  }
  return list;
}

}  // namespace execnet::bench
