#include "counting.hpp"

#include <gnu/libc-version.h>
#include <valgrind/callgrind.h>

#include <string>

// Collection is off at the start: count.py says --collect-atstart=no.
void begin_counting() { CALLGRIND_TOGGLE_COLLECT; }

void end_counting(const char* name) {
  CALLGRIND_TOGGLE_COLLECT;
  CALLGRIND_DUMP_STATS_AT(name);
}

const char* tool_chain() {
#ifdef __clang__
  static const std::string compiler = __VERSION__;
#else
  static const std::string compiler = "g++ " __VERSION__;
#endif
  static const std::string text = compiler + ", glibc " + gnu_get_libc_version();
  return text.c_str();
}
