#include "wire/frame.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace execnet::wire {
namespace {

std::string bytes_of(const FrameHeader& header, const std::string& payload = "") {
  const auto packed = pack(header);
  return std::string(packed.data(), packed.size()) + payload;
}

std::string data_frame(std::uint32_t channel, const std::string& payload, std::uint8_t flags = 0) {
  return bytes_of({FrameType::kData, flags, channel, static_cast<std::uint32_t>(payload.size()), 0}, payload);
}

// Text of the given size in which every place is different enough to show a shift.
std::string text(std::size_t size, unsigned seed = 0) {
  std::string result(size, ' ');
  for (std::size_t i = 0; i < size; ++i) {
    result[i] = static_cast<char>((i * 131 + i / 251 + seed) & 0xFF);
  }
  return result;
}

// Puts `stream` into the parser, at most `step` bytes at a time, and returns the payloads.
std::vector<std::string> parse(FrameParser& parser, const std::string& stream, std::size_t step) {
  std::vector<std::string> payloads;
  for (std::size_t at = 0; at < stream.size();) {
    const auto space = parser.space();
    EXPECT_FALSE(space.empty());
    const std::size_t count = std::min({step, space.size(), stream.size() - at});
    std::memcpy(space.data(), stream.data() + at, count);
    parser.received(count);
    at += count;
    while (auto frame = parser.next()) {
      payloads.emplace_back(frame->payload.view());
      EXPECT_EQ(frame->payload.size(), frame->header.length);
    }
  }
  return payloads;
}

Frame frame(FrameType type, std::uint32_t channel, const std::string& payload, std::uint8_t flags = 0) {
  return {{type, flags, channel, static_cast<std::uint32_t>(payload.size()), 0}, base::Buffer(payload)};
}

TEST(FrameHeaderTest, GoldenHeaders) {
  std::ifstream in(EXECNET_SOURCE_DIR "/tests/vectors/frames.txt");
  int count = 0;
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line.front() == '#') {
      continue;
    }
    SCOPED_TRACE(line);
    ++count;
    const std::size_t hex_at = line.find(" | ") + 3;
    const std::size_t expected_at = line.find(" | ", hex_at) + 3;
    std::array<char, kHeaderSize> bytes{};
    for (std::size_t i = 0; i < bytes.size(); ++i) {
      bytes[i] = static_cast<char>(std::stoi(line.substr(hex_at + 2 * i, 2), nullptr, 16));
    }
    const std::string expected = line.substr(expected_at);
    if (expected == "refused") {
      EXPECT_THROW(unpack(bytes), ProtocolError);
      continue;
    }
    unsigned type = 0;
    unsigned flags = 0;
    FrameHeader header;
    std::istringstream(expected) >> type >> flags >> header.channel >> header.length >> header.credit;
    header.type = static_cast<FrameType>(type);
    header.flags = static_cast<std::uint8_t>(flags);
    EXPECT_EQ(unpack(bytes), header);
    EXPECT_EQ(pack(header), bytes);
  }
  EXPECT_GT(count, 40);
}

TEST(FrameHeaderTest, ARefusalSaysWhatWasSeen) {
  const auto packed = pack({FrameType::kData, 0, 5, kMaxFramePayload + 1, 0});
  EXPECT_THROW(
      try { unpack(packed); } catch (const ProtocolError& error) {
        EXPECT_STREQ(error.what(), "length 1048577 in a DATA frame of channel 5; at most 1048576 is allowed");
        throw;
      },
      ProtocolError);
}

TEST(FrameParserTest, CutsAStreamHoweverItComes) {
  // Around the size of the buffer and of what is moved within it, and many small ones across its end.
  const std::vector<std::size_t> sizes = {
      0, 1, 100, 16000, 16368, 16369, 20000, 65519, 65520, 65521, 65536,  70000, 16,
      0, 0, 3,   40000, 40000, 15000, 15000, 15000, 15000, 15000, 300000, 7,     kMaxFramePayload,
      1};
  std::string stream;
  std::vector<std::string> expected;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    expected.push_back(text(sizes[i], static_cast<unsigned>(i)));
    stream += data_frame(static_cast<std::uint32_t>(i + 1), expected.back());
  }
  for (int i = 0; i < 5000; ++i) {
    expected.push_back(text(static_cast<std::size_t>(i % 50)));
    stream += data_frame(1, expected.back());
  }
  for (const std::size_t step : {std::size_t{1}, std::size_t{15}, std::size_t{17}, std::size_t{4096},
                                 std::size_t{65535}, std::size_t{65536}, stream.size()}) {
    FrameParser parser;
    EXPECT_TRUE(parse(parser, stream, step) == expected) << "in steps of " << step;
    EXPECT_FALSE(parser.within_frame());
  }
}

TEST(FrameParserTest, ReadsALargePayloadInPlace) {
  FrameParser parser;
  const std::string payload = text(kMaxFramePayload);
  const std::string stream = data_frame(1, payload);
  EXPECT_TRUE(parse(parser, stream.substr(0, 100), 100).empty());
  EXPECT_TRUE(parser.within_frame());
  const auto space = parser.space();
  ASSERT_EQ(space.size(), stream.size() - 100) << "exactly what is missing";
  std::memcpy(space.data(), stream.data() + 100, space.size());
  parser.received(space.size());
  const auto frame = parser.next();
  ASSERT_TRUE(frame);
  EXPECT_EQ(static_cast<const void*>(frame->payload.data() + 100 - kHeaderSize), space.data());
  EXPECT_TRUE(frame->payload.view() == payload);
}

TEST(FrameParserTest, RefusesABadHeaderBeforeItsPayload) {
  FrameParser parser;
  std::string stream = data_frame(1, "fine") + bytes_of({FrameType::kData, 0, 1, 0xFFFFFFFF, 0});
  EXPECT_THROW(parse(parser, stream, stream.size()), ProtocolError);
}

TEST(MessageAssemblerTest, AMessageOfOneFrameIsNotCopied) {
  MessageAssembler assembler;
  Frame whole = frame(FrameType::kExec, 3, "payload");
  const char* data = whole.payload.data();
  const auto message = assembler.add(std::move(whole));
  ASSERT_TRUE(message);
  EXPECT_EQ(message->type, FrameType::kExec);
  EXPECT_EQ(message->channel, 3U);
  EXPECT_EQ(message->payload.data(), data);
}

TEST(MessageAssemblerTest, ChunksOfSeveralChannelsInterleave) {
  MessageAssembler assembler;
  EXPECT_FALSE(assembler.add(frame(FrameType::kData, 1, "a", kMore)));
  EXPECT_FALSE(assembler.add(frame(FrameType::kData, 2, "x", kMore)));
  EXPECT_FALSE(assembler.add(frame(FrameType::kData, 1, "b", kMore)));
  EXPECT_EQ(assembler.pending(), 3U);
  EXPECT_EQ(assembler.add(frame(FrameType::kData, 3, "whole"))->payload.view(), "whole");
  EXPECT_EQ(assembler.add(frame(FrameType::kData, 2, "y"))->payload.view(), "xy");
  EXPECT_EQ(assembler.add(frame(FrameType::kData, 1, ""))->payload.view(), "ab");
  EXPECT_EQ(assembler.pending(), 0U);
  EXPECT_EQ(assembler.add(frame(FrameType::kData, 1, "next"))->payload.view(), "next");
}

TEST(MessageAssemblerTest, LargeChunksAreReadToWhereThoseBeforeThemAre) {
  const std::string first = text(300'000, 1);
  const std::string second = text(200'000, 2);
  const std::string other = text(250'000, 3);
  std::string stream = data_frame(1, first, kMore) + data_frame(2, other, kMore) + data_frame(1, second, kMore) +
                       data_frame(1, "small", kMore) + data_frame(1, second) + data_frame(2, first, kMore) +
                       bytes_of({FrameType::kData, kAbort, 2, 0, 0}) + data_frame(2, other) + data_frame(1, second);
  for (const std::size_t step : {std::size_t{1000}, std::size_t{65536}}) {
    FrameParser parser;
    MessageAssembler assembler;
    std::vector<std::string> messages;
    for (std::string_view left = stream; !left.empty();) {
      const auto space = parser.space();
      const std::size_t size = std::min({space.size(), left.size(), step});
      std::memcpy(space.data(), left.data(), size);
      left.remove_prefix(size);
      parser.received(size);
      while (auto frame = parser.next(&assembler)) {
        if (const auto message = assembler.add(std::move(*frame))) {
          messages.emplace_back(message->payload.view());
        }
      }
    }
    EXPECT_TRUE(messages == (std::vector<std::string>{first + second + "small" + second, other, second}));
    EXPECT_EQ(assembler.pending(), 0U);
  }
}

TEST(MessageAssemblerTest, AnAbortTakesTheChunksBack) {
  MessageAssembler assembler;
  EXPECT_FALSE(assembler.add(frame(FrameType::kData, 1, "lost", kMore)));
  EXPECT_FALSE(assembler.add(frame(FrameType::kData, 1, "", kAbort)));
  EXPECT_EQ(assembler.pending(), 0U);
  EXPECT_EQ(assembler.add(frame(FrameType::kData, 1, "kept"))->payload.view(), "kept");
}

TEST(MessageAssemblerTest, RefusesWhatDoesNotBelongTogether) {
  MessageAssembler mixed;
  EXPECT_FALSE(mixed.add(frame(FrameType::kData, 1, "a", kMore)));
  EXPECT_THROW(mixed.add(frame(FrameType::kCloseError, 1, "b")), ProtocolError);
}

TEST(MessageAssemblerTest, AnAbortOfNothingIsNothing) {
  MessageAssembler assembler;
  EXPECT_FALSE(assembler.add(frame(FrameType::kData, 1, "", kAbort)));
  EXPECT_FALSE(assembler.add(frame(FrameType::kData, 1, "a", kMore)));
  EXPECT_FALSE(assembler.add(frame(FrameType::kData, 2, "", kAbort)));
  EXPECT_EQ(assembler.add(frame(FrameType::kData, 1, "b"))->payload.view(), "ab");
}

}  // namespace
}  // namespace execnet::wire
