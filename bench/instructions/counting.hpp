// What callgrind counts: the instructions of the calling thread between begin and end, under a name. Without callgrind
// these do nothing. They are a library of their own, with names as in C, for hot_paths.py to call them, too.
#pragma once

extern "C" {
__attribute__((visibility("default"))) void begin_counting();
__attribute__((visibility("default"))) void end_counting(const char* name);
// Compiler and C library, with their versions: what instructions depend on beside the source.
__attribute__((visibility("default"))) const char* tool_chain();
}
