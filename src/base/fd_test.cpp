#include "base/fd.hpp"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace execnet::base {
namespace {

// For how many descriptors the kernel's table of this process has room.
std::size_t room() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word == "FDSize:") {
      std::size_t size = 0;
      status >> size;
      return size;
    }
  }
  return 0;
}

int lowest_free() { return Fd(::eventfd(0, EFD_CLOEXEC)).get(); }

TEST(Descriptors, AreExpectedWithoutOneThatIsLeftOpen) {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  const auto wanted = std::min<std::size_t>(room() * 2, limit.rlim_cur);
  const int before = lowest_free();
  expect_descriptors(wanted - static_cast<std::size_t>(before));
  EXPECT_GE(room(), wanted);
  EXPECT_EQ(lowest_free(), before);
}

TEST(Descriptors, AreNotExpectedBeyondTheLimit) {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  const rlimit low{.rlim_cur = room(), .rlim_max = limit.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &low), 0);
  expect_descriptors(10 * room());
  EXPECT_EQ(room(), low.rlim_cur);
  EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
}

TEST(Descriptors, NoneAreExpected) {
  const std::size_t before = room();
  expect_descriptors(0);
  EXPECT_EQ(room(), before);
}

}  // namespace
}  // namespace execnet::base
