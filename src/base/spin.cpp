#include "base/spin.hpp"

#include <sched.h>

namespace execnet::base {

// As it was when first asked.
bool Spin::two_can_run() {
  static const bool result = [] {
    cpu_set_t cpus;
    return ::sched_getaffinity(0, sizeof cpus, &cpus) != 0 || CPU_COUNT(&cpus) > 1;
  }();
  return result;
}

}  // namespace execnet::base
