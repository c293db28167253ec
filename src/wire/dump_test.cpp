#include "wire/dump.hpp"

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/rope.hpp"
#include "vectors.hpp"
#include "wire/encoder.hpp"

namespace execnet {

namespace {

using testing::from_hex;
using testing::rows;

// Stands for a channel, of which this layer knows only that references to the same one are equal.
ChannelRef stand_in() {
  const auto owner = std::make_shared<char>();
  return {owner, reinterpret_cast<core::ChannelHandle*>(owner.get())};
}

std::string to_hex(std::string_view bytes) {
  std::string hex;
  for (const char c : bytes) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    hex += kDigits[static_cast<unsigned char>(c) >> 4];
    hex += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return hex;
}

class Channels : public wire::ChannelTable {
 public:
  std::uint32_t id_of(const ChannelRef& channel) override {
    for (const auto& [id, known] : channels_) {
      if (known == channel) {
        return id;
      }
    }
    throw DumpError("a channel of another gateway");
  }
  ChannelRef channel(std::uint32_t id) override {
    auto& channel = channels_[id];
    if (channel == nullptr) {
      channel = stand_in();
    }
    return channel;
  }

 private:
  std::map<std::uint32_t, ChannelRef> channels_;
};

std::string dump_error(const Value& value) {
  try {
    dumps(value);
  } catch (const DumpError& error) {
    return error.what();
  }
  return "";
}

std::string load_error(const std::string& bytes) {
  try {
    static_cast<void>(loads(bytes));
  } catch (const LoadError& error) {
    return error.what();
  }
  return "";
}

// `levels` tuples or lists within each other.
template <typename Container>
Value nested(std::size_t levels) {
  Value value = Container{};
  for (std::size_t i = 1; i < levels; ++i) {
    Container outer;
    outer.push_back(std::move(value));
    value = std::move(outer);
  }
  return value;
}

TEST(DumpTest, GoldenValues) {
  const auto vectors = rows("values.txt");
  ASSERT_FALSE(vectors.empty());
  for (const auto& row : vectors) {
    ASSERT_EQ(row.size(), 4U) << row[0];
    const std::string& mode = row[1];
    const std::string bytes = from_hex(row[2]);
    SCOPED_TRACE(row[0]);
    if (mode == "channel") {
      Channels channels;
      const Value value = wire::decode(bytes.substr(1), &channels, {});
      base::Buffer out;
      wire::encode(value, out, &channels);
      EXPECT_EQ("02" + to_hex(out.view()), row[2]);
      continue;
    }
    const StringConfig strings{.py2str_as_py3str = mode != "load-py2str-as-bytes",
                               .py3str_as_py2str = mode == "load-py3str-as-bytes"};
    const Value value = loads(bytes, strings);
    EXPECT_EQ(to_string(value), row[3]);
    if (mode == "both") {
      EXPECT_EQ(to_hex(dumps(value)), row[2]);
    }
    EXPECT_EQ(loads(dumps(value)), value);
  }
}

TEST(DumpTest, MalformedBytesAreRefusedWithTheirOffset) {
  const auto vectors = rows("malformed.txt");
  ASSERT_FALSE(vectors.empty());
  for (const auto& row : vectors) {
    ASSERT_EQ(row.size(), 3U) << row[0];
    SCOPED_TRACE(row[0]);
    try {
      const Value value = loads(from_hex(row[2]));
      ADD_FAILURE() << "was loaded as " << value;
    } catch (const LoadError& error) {
      EXPECT_EQ(std::to_string(error.offset()), row[1]) << error.what();
    }
  }
}

TEST(DumpTest, EveryTruncationIsRefused) {
  const std::string bytes = dumps(Dict{{"a", List{1, 2.5, Bytes("x"), BigInt("100000000000000000000")}},
                                       {Tuple{FrozenSet{1}}, Set{Complex{1, 2}, true, Value()}}});
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_NE(load_error(bytes.substr(0, size)), "") << size;
  }
  EXPECT_EQ(load_error(bytes), "");
}

TEST(DumpTest, ErrorsSayWhatIsWrong) {
  EXPECT_EQ(load_error(from_hex("024100000003ff")), "truncated: 3 bytes announced, 1 there at byte 1");
  EXPECT_EQ(load_error(from_hex("024cfa")), "unknown opcode 250 at byte 2");
  EXPECT_EQ(load_error(from_hex("0343")), "wrong dumpformat version 3 at byte 0");
  EXPECT_EQ(load_error(from_hex("024c514c51")), "2 bytes after the end of the value at byte 3");
}

TEST(DumpTest, SeveralValuesInARowAreLoadedOneByOne) {
  const std::string bytes = dumps(1) + dumps("two");
  const Loaded first = load_first(bytes);
  EXPECT_EQ(first.value, Value(1));
  EXPECT_EQ(loads(std::string_view(bytes).substr(first.size)), Value("two"));
}

TEST(DumpTest, BytesAloneAreFoundWhereTheyAre) {
  for (const std::size_t size : {std::size_t{0}, std::size_t{5}, base::Rope::kWorthLending}) {
    const auto owner = std::make_shared<const std::string>(size, 'x');
    base::Rope rope;
    wire::encode_bytes(*owner, owner, rope);
    EXPECT_EQ(owner.use_count(), size < base::Rope::kWorthLending ? 1 : 2);
    std::string encoded(rope.size(), ' ');
    rope.copy_to(encoded.data());
    EXPECT_EQ(wire::decode(encoded, nullptr, {}), Value(Bytes(*owner)));
    const auto found = wire::bytes_in(encoded);
    ASSERT_TRUE(found);
    EXPECT_EQ(*found, *owner);
    EXPECT_EQ(found->data(), encoded.data() + 5);
    for (std::size_t part = 0; part < std::min<std::size_t>(encoded.size(), 16); ++part) {
      EXPECT_FALSE(wire::bytes_in(std::string_view(encoded).substr(0, part)));
    }
    EXPECT_FALSE(wire::bytes_in(encoded + "Q"));
  }
  EXPECT_EQ(wire::bytes_in(std::string("U\0\0\0\0\0\0\0\2abQ", 12)), "ab");
  EXPECT_FALSE(
      wire::bytes_in(std::string("U\xff\xff\xff\xff\xff\xff\xff\xff"
                                 "abQ",
                                 12)));
  EXPECT_FALSE(wire::bytes_in(std::string("N\0\0\0\2abQ", 8)));
}

TEST(DumpTest, NestingIsBoundedBothWays) {
  EXPECT_EQ(loads(dumps(nested<List>(wire::kMaxDepth))), nested<List>(wire::kMaxDepth));
  EXPECT_EQ(loads(dumps(nested<Tuple>(wire::kMaxDepth))), nested<Tuple>(wire::kMaxDepth));
  EXPECT_EQ(dump_error(nested<Tuple>(wire::kMaxDepth + 1)).substr(0, 76),
            "can't serialize more than 1000 levels of nesting at [0][0][0][0][0][0][0][0]");
  const std::string tuple_of_one = from_hex("4000000001");
  std::string tuples = from_hex("024c");
  for (std::size_t i = 0; i < 100'000; ++i) {
    tuples += tuple_of_one;
  }
  EXPECT_EQ(load_error(tuples + 'Q'), "more than 1000 levels of nesting at byte 5002");
  std::string lists = from_hex("02");  // closed from the inside
  for (std::size_t i = 0; i <= wire::kMaxDepth; ++i) {
    lists += from_hex("4b000000014600000000");
  }
  lists += 'L' + std::string(wire::kMaxDepth + 1, 'P');
  EXPECT_EQ(load_error(lists + 'Q'), "more than 1000 levels of nesting at byte 11012");
  std::string dicts = from_hex("02");
  for (std::size_t i = 0; i <= wire::kMaxDepth; ++i) {
    dicts += "JL";
  }
  EXPECT_NE(load_error(dicts + 'L' + std::string(wire::kMaxDepth + 1, 'P') + 'Q'), "");
}

TEST(DumpTest, WhatCannotBeDumpedIsNamedWithItsPath) {
  EXPECT_EQ(dump_error("\xff"), "can't serialize a std::string that is not UTF-8 (bytes travel as execnet::Bytes)");
  EXPECT_TRUE(dump_error(List{1, Dict{{"status", "\xff"}}}).ends_with(" at [1]['status']"));
  EXPECT_TRUE(dump_error(Dict{{"\xff", 1}}).ends_with(R"( at {'\xff': ...})"));
  EXPECT_TRUE(dump_error(Tuple{Set{FrozenSet{"\xff"}}}).ends_with(" at [0]{...}{...}"));
  EXPECT_EQ(dump_error(List{ChannelRef()}), "can't serialize a channel outside of a connection at [0]");
  EXPECT_EQ(dump_error(BigInt(std::string(wire::kMaxDigits + 1, '1'))),
            "can't serialize an integer of more than 1000000 digits");
  Channels channels;
  base::Buffer out("before");
  const auto stranger = stand_in();
  EXPECT_THROW(
      try { wire::encode(List{"x", stranger}, out, &channels); } catch (const DumpError& error) {
        EXPECT_STREQ(error.what(), "a channel of another gateway at [1]");
        throw;
      },
      DumpError);
  EXPECT_EQ(out.view(), "before") << "nothing of a refused value is left";
}

TEST(DumpTest, CanSendSaysBeforehandWhatAChannelCanCarry) {
  EXPECT_TRUE(can_send(Dict{{"numbers", List{1, 2.5}}, {"large", std::string(1 << 20, 'x')}}));
  EXPECT_TRUE(can_send(Bytes(std::string(1 << 20, 'x'))));
  EXPECT_TRUE(can_send(List{Value(stand_in())})) << "dumps() refuses channels, and channels carry them";
  EXPECT_FALSE(can_send(List{1, "\xff"}));
  EXPECT_FALSE(can_send(Value(ChannelRef())));
  Value deep = 1;
  for (int level = 0; level < 1001; ++level) {
    deep = List{std::move(deep)};
  }
  EXPECT_FALSE(can_send(deep));
}

TEST(DumpTest, IntegersOfAnySize) {
  const Value value = BigInt('-' + std::string(5001, '7'));
  EXPECT_EQ(loads(dumps(value)), value);
}

TEST(DumpTest, LengthsBeyondInt4AreWrittenWide) {
  base::Buffer out;
  wire::put_length(out, wire::Op::kBytes, wire::Op::kBytes8, 0x7fffffff);
  wire::put_length(out, wire::Op::kPy3String, wire::Op::kString8, 0x80000000);
  EXPECT_EQ(to_hex(out.view()),
            "417fffffff"
            "560000000080000000");
}

}  // namespace
}  // namespace execnet
