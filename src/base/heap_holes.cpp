#include "base/heap_holes.hpp"

#include <malloc.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

namespace execnet::base {

#ifdef __GLIBC__

std::size_t fill_heap_holes() {
  constexpr std::size_t kRoom = std::size_t{120} << 10;  // less than what glibc maps on its own, or gives back at once
  constexpr std::size_t kSmall = 1024;                   // what is freed up to here is kept for its size, not joined
  constexpr std::size_t kStep = 16;                      // between two sizes
  void* const room = std::malloc(kRoom);                 // that much there is at the end, when it is free again
  const auto end = reinterpret_cast<std::uintptr_t>(::sbrk(0)) - ::mallinfo2().keepcost;
  const std::size_t most = ::mallinfo2().arena;
  std::size_t taken = 0;
  // Down to the smallest, for which all that is left between two blocks is too small. Each size is asked for until it
  // comes from the end. Nothing is written, so that no page is made for it.
  for (std::size_t size = kRoom; size >= kStep && taken < most;) {
    void* const block = std::malloc(size);
    if (block != nullptr && reinterpret_cast<std::uintptr_t>(block) < end) {
      taken += ::malloc_usable_size(block);
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
