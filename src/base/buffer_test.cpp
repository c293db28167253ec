#include "base/buffer.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "soak.hpp"

namespace execnet::base {
namespace {

constexpr std::size_t kMegabyte = std::size_t{1} << 20;

TEST(Buffer, GrowsAndKeepsWhatItHolds) {
  Buffer buffer("abc");
  for (int i = 0; i < 1000; ++i) {
    buffer.append("0123456789");
  }
  buffer.push_back('!');
  EXPECT_EQ(buffer.size(), 10004U);
  EXPECT_EQ(buffer.view().substr(0, 5), "abc01");
  EXPECT_EQ(buffer.view().back(), '!');
  const Buffer moved = std::move(buffer);
  EXPECT_EQ(moved.size(), 10004U);
  EXPECT_TRUE(buffer.empty());  // NOLINT(bugprone-use-after-move): moved from means empty, by contract
}

TEST(Buffer, GrowsByLessWhereThereIsNoRoomForMore) {
  const execnet::testing::MemoryBound bound(700);
  Buffer buffer;
  for (int i = 0; i < 600; ++i) {
    buffer.extend(kMegabyte);  // none of it is ever written
  }
  EXPECT_EQ(buffer.size(), 600 * kMegabyte);
}

TEST(Buffer, TrimmedGivesBackWhatItDoesNotNeed) {
  const execnet::testing::MemoryBound bound(400);
  Buffer buffer;
  buffer.extend(5 * kMegabyte);
  buffer.extend(kMegabyte);  // room for 80
  buffer.append("end");
  buffer.trim();
  EXPECT_EQ(buffer.view().substr(6 * kMegabyte), "end");
  if (!execnet::testing::is_sanitized()) {
    std::vector<std::unique_ptr<char[]>> others;
    for (int i = 0; i < 36; ++i) {
      others.push_back(std::make_unique_for_overwrite<char[]>(10 * kMegabyte));
    }
  }
}

TEST(Buffer, WithoutRoomForWhatIsNeededThrowsAndKeepsWhatItHolds) {
  if (execnet::testing::is_sanitized()) {
    GTEST_SKIP() << "a sanitizer ends the program when there is no memory";
  }
  const execnet::testing::MemoryBound bound(100);
  Buffer buffer("abc");
  try {
    buffer.extend(200 * kMegabyte);
    FAIL() << "there is room";
  } catch (const std::bad_alloc& error) {
    EXPECT_EQ(std::string(error.what()), "there is no memory for " + std::to_string(200 * kMegabyte + 3) + " bytes");
  }
  EXPECT_EQ(buffer.view(), "abc");
}

}  // namespace
}  // namespace execnet::base
