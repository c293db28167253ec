#include "wire/deflate.hpp"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <string>

#include "wire/frame.hpp"

namespace execnet::wire {
namespace {

std::string text(std::size_t size) {
  std::string made;
  for (int line = 0; made.size() < size; ++line) {
    made += "    return self.values[" + std::to_string(line) + "]\n";
  }
  made.resize(size);
  return made;
}

std::string noise(std::size_t size) {
  std::minstd_rand random;
  std::string made(size, '\0');
  for (char& byte : made) {
    byte = static_cast<char>(random() >> 8);
  }
  return made;
}

base::Buffer unit_of(Deflater& deflater, std::string_view bytes, int level = Deflater::kFast) {
  base::Buffer unit;
  deflater.deflate(bytes, level, unit);
  return unit;
}

std::string inflated(Inflater& inflater, base::Buffer unit, std::size_t size) {
  inflater.begin(std::move(unit), size);
  std::string all;
  std::array<char, 1000> space;
  while (const std::size_t count = inflater.read(space)) {
    all.append(space.data(), count);
  }
  return all;
}

std::string error_of(base::Buffer unit, std::size_t size) {
  Inflater inflater;
  try {
    inflated(inflater, std::move(unit), size);
  } catch (const ProtocolError& error) {
    return error.what();
  }
  return "";
}

TEST(Deflate, UnitsOfOneStreamBecomeWhatTheyWere) {
  Deflater deflater;
  Inflater inflater;
  for (const std::string& bytes :
       {text(1), text(100'000), noise(300'000), text(1000), std::string(kMaxInflated, '\0')}) {
    for (const int level : {Deflater::kFast, Deflater::kGood}) {
      EXPECT_EQ(inflated(inflater, unit_of(deflater, bytes, level), bytes.size()), bytes);
    }
  }
}

TEST(Deflate, WhatWasInAUnitBeforeIsNotSaidAgain) {
  Deflater deflater;
  const std::string bytes = noise(1000);
  EXPECT_GT(unit_of(deflater, bytes).size(), 1000U);
  EXPECT_LT(unit_of(deflater, bytes).size(), 50U);
}

TEST(Deflate, WhatCannotBeCompressedBecomesHardlyLonger) {
  Deflater deflater;
  EXPECT_LT(unit_of(deflater, noise(200'000)).size(), 200'200U);
}

// Another writer may begin afresh at any unit.
TEST(Deflate, AFreshDeflaterMayGoOn) {
  Inflater inflater;
  for (int i = 0; i < 3; ++i) {
    Deflater deflater;
    EXPECT_EQ(inflated(inflater, unit_of(deflater, text(5000)), 5000), text(5000));
  }
}

TEST(Deflate, ALengthThatIsNotTrueIsAnError) {
  Deflater deflater;
  EXPECT_NE(error_of(unit_of(deflater, text(5000)), 4999).find("more bytes than it says"), std::string::npos);
  Deflater other;
  EXPECT_NE(error_of(unit_of(other, text(5000)), 5001).find("fewer bytes than it says"), std::string::npos);
}

// A megabyte from a kilobyte: no more than one piece of it is made.
TEST(Deflate, OfABombOnePieceIsMade) {
  Deflater deflater;
  Inflater inflater;
  inflater.begin(unit_of(deflater, std::string(100 << 20, 'x')), 10);
  std::array<char, 1000> space;
  EXPECT_THROW(inflater.read(space), ProtocolError);
}

TEST(Deflate, WhatIsNoneIsAnError) {
  EXPECT_NE(error_of(base::Buffer("\xff\xff\xff\xff"), 10).find("cannot be inflated"), std::string::npos);
  EXPECT_NE(error_of(base::Buffer(noise(1000)), 10), "");
  Deflater deflater;
  const base::Buffer unit = unit_of(deflater, text(5000));
  EXPECT_NE(error_of(base::Buffer(unit.view().substr(0, unit.size() / 2)), 5000), "");
}

TEST(Deflate, AStreamThatEndsIsAnError) {
  EXPECT_NE(error_of(base::Buffer(std::string_view("\x03\x00", 2)), 1).find("has ended"), std::string::npos);
}

}  // namespace
}  // namespace execnet::wire
