#include "base/fd.hpp"

#include <unistd.h>

namespace execnet::base {

void Fd::reset(int fd) noexcept {
  if (fd_ >= 0) {
    ::close(fd_);  // Not retried: on Linux the descriptor is gone even when close says EINTR.
  }
  fd_ = fd;
}

}  // namespace execnet::base
