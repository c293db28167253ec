#include "py_arenas.hpp"

#include <array>
#include <utility>

#ifndef Py_GIL_DISABLED

namespace execnet::python::arenas {

void keep(std::size_t size) {
  constexpr std::size_t kLargest = 512;  // what is larger does not come from an arena
  static std::array<void*, kBlocks> blocks{};
  static std::size_t oldest = 0;
  if (size > kLargest) {
    until_next = 1;  // the next object will do
    return;
  }
  until_next = kEvery;
  // First the new one: the other may be what keeps the arena that it will be in.
  void* const block = PyObject_Malloc(size);
  PyObject_Free(std::exchange(blocks[oldest], block));
  oldest = (oldest + 1) % kBlocks;
}

}  // namespace execnet::python::arenas

#endif
