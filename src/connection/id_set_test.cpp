#include "connection/id_set.hpp"

#include <gtest/gtest.h>

namespace execnet::core {
namespace {

TEST(IdSet, KeepsRunsWhateverTheOrder) {
  IdSet ids;
  for (const std::uint32_t id : {7U, 3U, 1U, 9U}) {
    ids.insert(id);
  }
  EXPECT_EQ(ids.runs(), 2U);
  EXPECT_FALSE(ids.contains(5));
  ids.insert(5);
  ids.insert(5);
  EXPECT_EQ(ids.runs(), 1U);
  for (std::uint32_t id = 1; id <= 9; id += 2) {
    EXPECT_TRUE(ids.contains(id)) << id;
  }
  EXPECT_FALSE(ids.contains(11));
}

TEST(IdSet, HoldsTheLastIdThereIs) {
  IdSet ids;
  ids.insert(0xFFFFFFFFU);
  ids.insert(0xFFFFFFFDU);
  EXPECT_TRUE(ids.contains(0xFFFFFFFFU));
  EXPECT_EQ(ids.runs(), 1U);
}

}  // namespace
}  // namespace execnet::core
