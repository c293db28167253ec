// Resource limits of this process for a moment of a test.
#pragma once

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <stdexcept>

namespace execnet::testing {

class Limit {
 public:
  using Resource = decltype(RLIMIT_NOFILE);

  Limit(Resource resource, rlim_t soft) : resource_(resource) {
    ::getrlimit(resource_, &before_);
    const rlimit wanted{.rlim_cur = soft, .rlim_max = before_.rlim_max};
    if (::setrlimit(resource_, &wanted) != 0) {
      throw std::runtime_error("setrlimit");
    }
  }
  ~Limit() { ::setrlimit(resource_, &before_); }
  Limit(const Limit&) = delete;
  Limit& operator=(const Limit&) = delete;

 private:
  Resource resource_;
  rlimit before_{};
};

// No descriptor is to be had: those that there are stay open.
class NoDescriptors {
 public:
  NoDescriptors() : limit_(RLIMIT_NOFILE, lowest_free()) {}

 private:
  static rlim_t lowest_free() {
    const int fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    ::close(fd);
    return static_cast<rlim_t>(fd);
  }

  Limit limit_;
};

}  // namespace execnet::testing
