#include "base/spin.hpp"

#include <sched.h>

namespace execnet::base {
namespace {

// As it was when first asked.
bool have_two_cpus() {
  static const bool result = [] {
    cpu_set_t cpus;
    return ::sched_getaffinity(0, sizeof cpus, &cpus) != 0 || CPU_COUNT(&cpus) > 1;
  }();
  return result;
}

}  // namespace

bool Spin::worth_it() const { return in_vain_ < kTriesInVain && have_two_cpus(); }

}  // namespace execnet::base
