#include "base/fork.hpp"

#include <pthread.h>

#include <atomic>

namespace execnet::base {
namespace {

std::atomic<std::uint64_t> generation = 0;

// Before main, so that no process is forked uncounted.
[[maybe_unused]] const int kCounting =
    ::pthread_atfork(nullptr, nullptr, [] { generation.fetch_add(1, std::memory_order_relaxed); });

}  // namespace

std::uint64_t process_generation() { return generation.load(std::memory_order_relaxed); }

}  // namespace execnet::base
