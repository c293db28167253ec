#include "scarce_memory.hpp"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

#include "soak.hpp"

namespace {

std::atomic<bool> scarce{false};
std::atomic<long> count_asked{0};
std::atomic<long> count_failed{0};
std::atomic<long> from{0};
std::atomic<long> to{0};

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

bool fails() {
  if (!scarce) {
    return false;
  }
  const long number = ++count_asked;
  if (number < from || number >= to) {
    return false;
  }
  ++count_failed;
  return true;
}

#endif

}  // namespace

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

void* operator new(std::size_t size) {
  void* const memory = fails() ? nullptr : std::malloc(size > 0 ? size : 1);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t /*size*/) noexcept { std::free(memory); }

#endif

namespace execnet::testing {

ScarceMemory::ScarceMemory(long first, long count) {
  count_asked = 0;
  count_failed = 0;
  from = first;
  to = first + count;
  scarce = true;
}

ScarceMemory::~ScarceMemory() { scarce = false; }

long ScarceMemory::asked() { return count_asked; }
long ScarceMemory::failed() { return count_failed; }
bool ScarceMemory::is_possible() { return !is_sanitized(); }

}  // namespace execnet::testing
