// The interpreter's memory for small objects, kept from one large value to the next.
//
// It comes from the kernel in arenas of 1 MiB and goes back when the last object in one is gone (Objects/obmalloc.c). A
// program that lets go of each large value before it gets the next would have all of its pages made and cleared anew,
// which takes nearly as long as the objects. So a few blocks of ours stay among those of the last large values: an
// arena that has one in it stays, too, for whatever the program makes next.
//
// THREAD: needs the GIL.
#pragma once

#include <Python.h>

#include <cstddef>

namespace execnet::python::arenas {

#ifdef Py_GIL_DISABLED  // where there are none
inline void begin() {}
inline void expect(std::size_t /*size*/) {}
#else
inline constexpr std::size_t kEvery = 8192;  // objects between two blocks; an arena has room for 32,768 of the smallest
inline constexpr std::size_t kBlocks = 32;   // the oldest goes when there would be more: 8 to 32 MiB stay

// Objects until the next block. Not in an object of its own: what decodes has few registers to spare.
inline std::size_t until_next = kEvery;

// A value begins. Small ones never come to a block.
inline void begin() { until_next = kEvery; }

// Leaves a block beside objects of this size, in bytes.
void keep(std::size_t size);

// An object of so many bytes is about to be made.
inline void expect(std::size_t size) {
  if (--until_next == 0) [[unlikely]] {
    keep(size);
  }
}
#endif

}  // namespace execnet::python::arenas
