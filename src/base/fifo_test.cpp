#include "base/fifo.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace execnet::base {
namespace {

TEST(Fifo, GivesBackInOrderWhatWasPutIn) {
  Fifo<int> fifo;
  int next = 0;
  for (int i = 0; i < 1000; ++i) {
    fifo.push_back(int{i});
    if (i % 3 != 0) {
      ASSERT_EQ(fifo.front(), next);
      ASSERT_EQ(fifo.take_front(), next++);
    }
  }
  EXPECT_EQ(fifo.size(), static_cast<std::size_t>(1000 - next));
  for (const int item : fifo) {
    ASSERT_EQ(item, next++);
  }
  EXPECT_EQ(next, 1000);
}

TEST(Fifo, LetsGoOfAnItemWhenItIsTakenOut) {
  Fifo<std::shared_ptr<int>> fifo;
  const auto item = std::make_shared<int>(1);
  fifo.push_back(std::shared_ptr(item));
  fifo.push_back(std::shared_ptr(item));
  static_cast<void>(fifo.take_front());
  EXPECT_EQ(item.use_count(), 2);
  fifo.clear();
  EXPECT_EQ(item.use_count(), 1);
  EXPECT_TRUE(fifo.empty());
}

}  // namespace
}  // namespace execnet::base
