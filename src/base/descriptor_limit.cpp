#include "base/descriptor_limit.hpp"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "base/fd.hpp"

namespace execnet::base {
namespace {

std::atomic<rlim_t> limit_before = 0;
std::atomic<rlim_t> limit_raised = 0;

// So much more than is needed that a group which grows by one gateway at a time does not raise it each time.
constexpr rlim_t kMargin = 256;

// How many of so many are missing. Opens them all for a moment: numbers that are free may lie anywhere.
std::size_t missing(std::size_t count) {
  std::vector<Fd> opened;
  opened.reserve(count);
  while (opened.size() < count) {
    Fd another(opened.empty() ? ::eventfd(0, EFD_CLOEXEC) : ::fcntl(opened.front().get(), F_DUPFD_CLOEXEC, 0));
    if (!another) {
      break;
    }
    opened.push_back(std::move(another));
  }
  return count - opened.size();
}

}  // namespace

void make_room_for_descriptors(std::size_t count) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) {
    return;
  }
  const std::size_t lack = missing(count);
  if (lack == 0) {
    return;
  }
  const rlimit raised{std::min(limit.rlim_cur + lack + kMargin, limit.rlim_max), limit.rlim_max};
  if (::setrlimit(RLIMIT_NOFILE, &raised) == 0) {
    if (limit_raised != limit.rlim_cur) {  // else it was raised before
      limit_before = limit.rlim_cur;
    }
    limit_raised = raised.rlim_cur;
  }
}

std::size_t descriptor_limit_before() {
  rlimit limit{};
  const bool ours = ::getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur == limit_raised;
  return ours ? static_cast<std::size_t>(limit_before) : 0;
}

}  // namespace execnet::base
