#include "base/descriptor_limit.hpp"

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include <string>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/syscall.hpp"
#include "elsewhere.hpp"

namespace execnet::base {
namespace {

// The soft limit, and what it was before, after room was made for so many, when there is room for three.
std::string limits_after(rlim_t soft, rlim_t hard, std::size_t count) {
  return execnet::testing::elsewhere([&] {
    const rlimit low{.rlim_cur = soft, .rlim_max = hard};
    check("setrlimit", [&] { return ::setrlimit(RLIMIT_NOFILE, &low); });
    std::vector<Fd> all;
    for (Fd fd(::eventfd(0, EFD_CLOEXEC)); fd; fd = Fd(::eventfd(0, EFD_CLOEXEC))) {
      all.push_back(std::move(fd));
    }
    all.erase(all.begin() + 10, all.begin() + 12);
    all.pop_back();
    make_room_for_descriptors(count);
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    return std::to_string(limit.rlim_cur) + " " + std::to_string(descriptor_limit_before());
  });
}

TEST(DescriptorLimit, IsRaisedWhenItLeavesNoRoom) {
  EXPECT_EQ(limits_after(100, 1000, 3), "100 0");
  EXPECT_EQ(limits_after(100, 1000, 5), "358 100");
  EXPECT_EQ(limits_after(100, 200, 5), "200 100");
  EXPECT_EQ(limits_after(100, 100, 5), "100 0");
}

}  // namespace
}  // namespace execnet::base
