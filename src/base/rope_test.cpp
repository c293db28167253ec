#include "base/rope.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace execnet::base {
namespace {

std::string all(const Rope& rope, std::size_t begin, std::size_t size) {
  std::string text;
  rope.runs(begin, size, [&](std::string_view bytes) {
    EXPECT_FALSE(bytes.empty());
    text += bytes;
  });
  return text;
}

TEST(Rope, IsOneBufferWithoutLoans) {
  const Rope rope(Buffer("abc"));
  EXPECT_TRUE(rope.is_plain());
  EXPECT_EQ(rope.size(), 3U);
  EXPECT_EQ(rope.view(), "abc");
  EXPECT_EQ(all(rope, 1, 1), "b");
  EXPECT_EQ(all(Rope(), 0, 0), "");
}

TEST(Rope, AnyPartCanBeWrittenOfWhatIsLentAndOwned) {
  const auto owner = std::make_shared<const std::string>("LENT");
  Rope rope;
  rope.lend(*owner, owner);
  rope.own().append("own");
  rope.lend(std::string_view(*owner).substr(1), owner);
  rope.lend({}, owner);
  rope.lend(*owner, owner);
  rope.own().append("ed");
  const std::string whole = "LENTownENTLENTed";
  ASSERT_EQ(rope.size(), whole.size());
  for (std::size_t begin = 0; begin <= whole.size(); ++begin) {
    for (std::size_t size = 0; begin + size <= whole.size(); ++size) {
      EXPECT_EQ(all(rope, begin, size), whole.substr(begin, size)) << begin << "+" << size;
    }
  }
  std::string copy(whole.size(), '?');
  rope.copy_to(copy.data());
  EXPECT_EQ(copy, whole);
}

TEST(Rope, HoldsTheOwnersUntilItGoes) {
  auto owner = std::make_shared<const std::string>("LENT");
  const std::weak_ptr<const std::string> watch = owner;
  {
    Rope rope;
    rope.lend(*owner, owner);
    owner.reset();
    const Rope moved = std::move(rope);
    EXPECT_EQ(all(moved, 0, 4), "LENT");
    EXPECT_FALSE(watch.expired());
  }
  EXPECT_TRUE(watch.expired());
}

}  // namespace
}  // namespace execnet::base
