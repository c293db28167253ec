#include "base/huge_pages.hpp"

#include <sys/mman.h>

#include <cstdint>

namespace execnet::base {

void want_huge_pages(void* data, std::size_t size) {
#ifdef MADV_HUGEPAGE
  constexpr std::uintptr_t kPage = 4096;
  if (size < kLarge) {
    return;
  }
  const std::size_t past = reinterpret_cast<std::uintptr_t>(data) % kPage;
  const std::size_t skipped = past == 0 ? 0 : kPage - past;
  const std::size_t pages = (size - skipped) / kPage;
  static_cast<void>(::madvise(static_cast<char*>(data) + skipped, pages * kPage, MADV_HUGEPAGE));
#else
  static_cast<void>(data);
  static_cast<void>(size);
#endif
}

}  // namespace execnet::base
