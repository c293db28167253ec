#include "rsync/sha256.hpp"

#include <gtest/gtest.h>

namespace execnet::core {
namespace {

std::string hex(const Digest& digest) {
  std::string text;
  for (const char byte : digest) {
    constexpr char kDigits[] = "0123456789abcdef";
    text.push_back(kDigits[static_cast<unsigned char>(byte) >> 4]);
    text.push_back(kDigits[static_cast<unsigned char>(byte) & 15]);
  }
  return text;
}

// The examples of FIPS 180.
TEST(Sha256, GivesThePublishedDigests) {
  Sha256 empty;
  EXPECT_EQ(hex(empty.digest()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  Sha256 abc;
  abc.update("abc");
  EXPECT_EQ(hex(abc.digest()), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256, DoesNotCareHowTheBytesArePieced) {
  Sha256 pieces;
  Sha256 whole;
  std::string all;
  for (std::size_t size = 0; size < 200; ++size) {
    pieces.update(std::string(size, 'x'));
    all.append(size, 'x');
  }
  whole.update(all);
  EXPECT_EQ(pieces.digest(), whole.digest());
}

}  // namespace
}  // namespace execnet::core
