#include "base/event.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>
#include <span>

#include "base/syscall.hpp"
#include "base/wait.hpp"

namespace execnet::base {

Event::Event() : fd_(check("eventfd", [] { return ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); })) {}

bool Event::has_happened() const {
  pollfd entry{fd_.get(), POLLIN, 0};
  return poll_once(std::span(&entry, 1), Clock::now()) > 0;
}

void Event::signal() {
  const std::uint64_t one = 1;
  static_cast<void>(!::write(fd_.get(), &one, sizeof one));
}

}  // namespace execnet::base
