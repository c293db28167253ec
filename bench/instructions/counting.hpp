// Have callgrind count the instructions of the calling thread between begin and end, under a name. Without callgrind
// these functions do nothing. They are a library of their own, with C names, so that hot_paths.py can call them, too.
#pragma once

extern "C" {
__attribute__((visibility("default"))) void begin_counting();
__attribute__((visibility("default"))) void end_counting(const char* name);
// Compiler and C library, with their versions. Instructions depend on them and on the source.
__attribute__((visibility("default"))) const char* tool_chain();
}
