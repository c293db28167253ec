#include "base/fd.hpp"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

namespace execnet::base {

void Fd::reset(int fd) noexcept {
  if (fd_ >= 0) {
    ::close(fd_);  // Not retried: on Linux the descriptor is gone even when close says EINTR.
  }
  fd_ = fd;
}

bool has_standard(int fd) {
  const int flags = ::fcntl(fd, F_GETFD);
  return flags >= 0 && (flags & FD_CLOEXEC) == 0;
}

void expect_descriptors(std::size_t count) {
  const Fd lowest(::eventfd(0, EFD_CLOEXEC));  // its number is about how many there are
  rlimit limit{};
  if (lowest && count > 0 && ::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    const rlim_t last = std::min<rlim_t>(static_cast<rlim_t>(lowest.get()) + count, limit.rlim_cur) - 1;
    const Fd highest(::fcntl(lowest.get(), F_DUPFD_CLOEXEC, static_cast<int>(last)));
  }
}

}  // namespace execnet::base
