#include "base/heap_holes.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <set>
#include <vector>

namespace execnet::base {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kSize = 200;

// Blocks of all kinds of sizes, of which every other one is free.
std::vector<void*> make_holes() {
  std::vector<void*> used;
  for (int i = 0; i < 4000; ++i) {
    used.push_back(std::malloc(16 + static_cast<std::size_t>(i) * 37 % 3000));
  }
  for (std::size_t i = 0; i < used.size(); i += 2) {
    std::free(used[i]);
    used[i] = nullptr;
  }
  return used;
}

// On how many pages so many blocks lie.
std::size_t pages_of(int blocks) {
  std::set<std::uintptr_t> pages;
  std::vector<void*> all;
  for (int i = 0; i < blocks; ++i) {
    all.push_back(std::malloc(kSize));
    pages.insert(reinterpret_cast<std::uintptr_t>(all.back()) / kPage);
  }
  for (void* block : all) {
    std::free(block);
  }
  return pages.size();
}

TEST(HeapHoles, AreTakenSoThatWhatComesNextLiesSideBySide) {
  if (fill_heap_holes() == 0) {
    GTEST_SKIP() << "the heap is not that of a new glibc";
  }
  constexpr int kBlocks = 200;
  constexpr std::size_t kTogether = kBlocks * (kSize + 8) / kPage;
  const std::vector<void*> used = make_holes();
  EXPECT_GT(pages_of(kBlocks), 2 * kTogether);
  EXPECT_GT(fill_heap_holes(), 1'000'000);
  EXPECT_LE(pages_of(kBlocks), kTogether * 3 / 2);  // what counts them lies among them
  for (void* block : used) {
    std::free(block);
  }
}

TEST(HeapHoles, TwiceTakesNothingMore) {
  const std::vector<void*> used = make_holes();
  fill_heap_holes();
  EXPECT_LT(fill_heap_holes(), 200'000);  // the room that is made at the end
  for (void* block : used) {
    std::free(block);
  }
}

}  // namespace
}  // namespace execnet::base
