#include "base/ring.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace execnet::base {
namespace {

struct Memory {
  static constexpr std::size_t kCapacity = 64;
  RingHeader header;
  std::array<char, kCapacity> data{};
  RingProducer producer{&header, data.data(), kCapacity};
  RingConsumer consumer{&header, data.data(), kCapacity};

  std::size_t write(std::string_view text) {
    const iovec part{const_cast<char*>(text.data()), text.size()};
    return producer.write(std::span(&part, 1));
  }
  std::string read(std::size_t most = 1000) {
    std::string text(most, '\0');
    text.resize(consumer.read(std::span(text.data(), text.size())));
    return text;
  }
};

TEST(Ring, GivesWhatWasPutInAcrossItsEndAndAcrossParts) {
  Memory ring;
  std::string written;
  std::string read;
  for (int i = 0; i < 100; ++i) {
    const std::string head = std::to_string(i) + ":";
    const std::string body(static_cast<std::size_t>(i % 23), 'x');
    const std::array<iovec, 3> parts{
        {{const_cast<char*>(head.data()), head.size()}, {nullptr, 0}, {const_cast<char*>(body.data()), body.size()}}};
    ASSERT_EQ(ring.producer.write(parts), head.size() + body.size());
    written += head + body;
    read += ring.read(7);
    read += ring.read();
  }
  EXPECT_EQ(read, written);
  EXPECT_FALSE(ring.consumer.readable());
}

TEST(Ring, TakesWhatThereIsRoomFor) {
  Memory ring;
  EXPECT_EQ(ring.write(std::string(60, 'a')), 60U);
  EXPECT_EQ(ring.write("bcdefgh"), 4U);
  EXPECT_EQ(ring.write("x"), 0U);
  EXPECT_EQ(ring.read(3), "aaa");
  EXPECT_EQ(ring.write("xyz!"), 3U);
  EXPECT_EQ(ring.read(), std::string(57, 'a') + "bcdexyz");
  EXPECT_EQ(ring.read(), "");
}

TEST(Ring, WhoSleepsIsToBeWokenOnce) {
  Memory ring;
  ring.write("a");
  EXPECT_FALSE(ring.producer.takes_on_waking());  // nobody sleeps
  EXPECT_FALSE(ring.consumer.may_sleep());        // there is something
  EXPECT_EQ(ring.read(), "a");
  EXPECT_TRUE(ring.consumer.may_sleep());
  ring.write("b");
  EXPECT_TRUE(ring.producer.takes_on_waking());
  EXPECT_FALSE(ring.producer.takes_on_waking());
  EXPECT_TRUE(ring.consumer.readable());
}

TEST(Ring, AWriterIsWokenWhenHalfOfItIsFree) {
  Memory ring;
  EXPECT_FALSE(ring.producer.may_sleep());  // there is room
  ring.write(std::string(64, 'a'));
  EXPECT_TRUE(ring.producer.may_sleep());
  EXPECT_EQ(ring.read(10).size(), 10U);
  EXPECT_FALSE(ring.consumer.takes_on_waking());
  EXPECT_EQ(ring.read(22).size(), 22U);
  EXPECT_TRUE(ring.consumer.takes_on_waking());
  EXPECT_FALSE(ring.consumer.takes_on_waking());
  EXPECT_FALSE(ring.producer.may_sleep());
}

TEST(Ring, NumbersThatCannotBeAreRefused) {
  Memory ring;
  ring.header.written = 65;
  EXPECT_THROW(ring.read(), RingBroken);
  ring.header.written = ~std::uint64_t{0};  // fewer than were read
  EXPECT_THROW(ring.read(), RingBroken);
  ring.write(std::string(64, 'a'));
  ring.header.read = 65;
  EXPECT_THROW(ring.write("b"), RingBroken);
  ring.header.read = ~std::uint64_t{0};
  EXPECT_THROW(ring.write("b"), RingBroken);
}

TEST(Ring, WhatPassesThroughLittleByLittleStaysAtTheStart) {
  RingHeader header;
  std::vector<char> data(std::size_t{1} << 20);
  RingProducer producer(&header, data.data(), data.size());
  RingConsumer consumer(&header, data.data(), data.size());
  const auto pass = [&](std::size_t size) {
    std::string text(size, 'x');
    const iovec part{text.data(), text.size()};
    std::string read(size, '\0');
    ASSERT_EQ(producer.write(std::span(&part, 1)), size);
    ASSERT_EQ(consumer.read(read), size);
    ASSERT_EQ(read, text);
  };
  for (int i = 0; i < 10'000; ++i) {
    pass(1000);
  }
  EXPECT_EQ(std::count(data.begin() + (20 << 10), data.end(), 'x'), 0);
  pass(700'000);
  pass(700'000);  // from the start again, as the ring is empty; and what is larger than a block is no trouble
  EXPECT_EQ(std::count(data.begin() + 800'000, data.end(), 'x'), 0);
}

TEST(Ring, TwoThreadsMoveALotThroughALittle) {
  Memory ring;
  constexpr std::size_t kBytes = 200'000;
  std::thread producer([&] {
    std::array<char, 97> bytes;
    for (std::size_t at = 0; at < kBytes;) {
      const std::size_t size = std::min({bytes.size(), kBytes - at, 1 + at % 97});
      for (std::size_t i = 0; i < size; ++i) {
        bytes[i] = static_cast<char>((at + i) * 7);
      }
      const std::size_t taken = ring.write({bytes.data(), size});
      at += taken;
      if (taken == 0) {
        std::this_thread::yield();
      }
    }
  });
  std::size_t wrong = 0;
  for (std::size_t at = 0; at < kBytes;) {
    const std::string text = ring.read(1 + at % 61);
    for (std::size_t i = 0; i < text.size(); ++i) {
      wrong += static_cast<std::size_t>(text[i] != static_cast<char>((at + i) * 7));
    }
    at += text.size();
    if (text.empty()) {
      std::this_thread::yield();
    }
  }
  producer.join();
  EXPECT_EQ(wrong, 0U);
}

}  // namespace
}  // namespace execnet::base
