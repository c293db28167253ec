#include "loop/waiter.hpp"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

#include "base/syscall.hpp"

namespace execnet::loop {

Waiter::Waiter() : eventfd_(base::check("eventfd", [] { return ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); })) {}

Waiter& Waiter::of_this_thread() {
  // A pointer, which is there to the last: static objects wait, too, when they are destroyed, and that is after
  // everything that is thread_local. Such a late one is never deleted.
  thread_local Waiter* waiter = nullptr;
  thread_local struct Owner {
    ~Owner() { delete std::exchange(waiter, nullptr); }
  } owner;
  static_cast<void>(&owner);
  if (waiter == nullptr || waiter->made_here_.in_forked_copy()) {
    delete std::exchange(waiter, nullptr);  // of a forked copy: the eventfd is shared with the parent
    waiter = new Waiter();
  }
  return *waiter;
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
