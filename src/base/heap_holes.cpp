#include "base/heap_holes.hpp"

#include <malloc.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

namespace execnet::base {

#if defined(__GLIBC__) && !defined(__UCLIBC__)
#if __GLIBC_PREREQ(2, 33)
#define EXECNET_KNOWS_THE_HEAP
#endif
#endif

#ifdef EXECNET_KNOWS_THE_HEAP

std::size_t fill_heap_holes() {
  constexpr std::size_t kRoom = std::size_t{120} << 10;  // less than what glibc maps on its own, or gives back at once
  constexpr std::size_t kSmall = 1024;                   // glibc keeps freed blocks up to this apart, by size
  constexpr std::size_t kStep = 16;                      // between two sizes
  constexpr int kMost = 100'000;                         // blocks; some 50 ms
  void* const room = std::malloc(kRoom);                 // so that this much is free at the end of the heap later
  const struct mallinfo2 heap = ::mallinfo2();
  const auto top = reinterpret_cast<std::uintptr_t>(::sbrk(0));
  const std::uintptr_t end = top - heap.keepcost;
  std::size_t taken = 0;
  int blocks = 0;
  // Down to the smallest size, so that every remaining hole is too small. Each size is allocated until a block comes
  // from the end of the heap. Only the header of a block is written.
  for (std::size_t size = kRoom; size >= kStep && blocks < kMost && taken < heap.arena;) {
    void* const block = std::malloc(size);
    const auto at = reinterpret_cast<std::uintptr_t>(block);
    if (at >= top - heap.arena && at < end) {
      taken += ::malloc_usable_size(block);
      ++blocks;
      continue;
    }
    if (size > kSmall) {
      std::free(block);
    }
    size -= size > kSmall ? size / 8 / kStep * kStep : kStep;
  }
  std::free(room);
  return taken;
}

#else

std::size_t fill_heap_holes() { return 0; }

#endif

}  // namespace execnet::base
