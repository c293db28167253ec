#include "loop/waiter.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

#include "base/syscall.hpp"

namespace execnet::loop {

Waiter::Waiter() : eventfd_(base::check("eventfd", [] { return ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); })) {}

Waiter& Waiter::of_this_thread() {
  thread_local Waiter waiter;
  if (waiter.made_here_.in_forked_copy()) {
    waiter = Waiter();  // the eventfd is shared with the parent
  }
  return waiter;
}

void Waiter::wake() const {
  const std::uint64_t one = 1;
  static_cast<void>(!::write(eventfd_.get(), &one, sizeof one));  // full means: a wake-up is pending
}

void Waiter::clear() const {
  std::uint64_t drained = 0;
  static_cast<void>(!::read(eventfd_.get(), &drained, sizeof drained));
}

}  // namespace execnet::loop
