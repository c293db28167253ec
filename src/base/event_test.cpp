#include "base/event.hpp"

#include <gtest/gtest.h>
#include <poll.h>

namespace execnet::base {
namespace {

TEST(Event, HappensOnceAndStays) {
  Event event;
  EXPECT_FALSE(event.has_happened());
  event.signal();
  event.signal();
  pollfd entry{event.fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&entry, 1, 0), 1);
  EXPECT_TRUE(event.has_happened());
  EXPECT_TRUE(event.has_happened());
}

}  // namespace
}  // namespace execnet::base
