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
  constexpr std::size_t kSmall = 1024;                   // what is freed up to here is kept for its size, not joined
  constexpr std::size_t kStep = 16;                      // between two sizes
  constexpr int kMost = 100'000;                         // blocks; some 50 ms
  void* const room = std::malloc(kRoom);                 // that much there is at the end, when it is free again
  const struct mallinfo2 heap = ::mallinfo2();
  const auto top = reinterpret_cast<std::uintptr_t>(::sbrk(0));
  const std::uintptr_t end = top - heap.keepcost;
  std::size_t taken = 0;
  int blocks = 0;
  // Down to the smallest, for which all that is left between two blocks is too small. Each size is asked for until it
  // comes from the end. Of a block no more is written than its header.
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
