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
  const std::size_t pages = (past + size + kPage - 1) / kPage;
  static_cast<void>(::madvise(static_cast<char*>(data) - past, pages * kPage, MADV_HUGEPAGE));
#else
  static_cast<void>(data);
  static_cast<void>(size);
#endif
}

}  // namespace execnet::base
