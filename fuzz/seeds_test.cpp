// Runs the fuzz target that it is linked with over its seeds. It is an ordinary test, for any compiler.
#include <gtest/gtest.h>

#include "target.hpp"
#include "vectors.hpp"

namespace execnet {
namespace {

TEST(FuzzTarget, AcceptsAllItsSeedsAndWhatIsLeftWhenTheyAreCut) {
  const auto seeds = testing::seeds_of(EXECNET_FUZZ_TARGET);
  ASSERT_FALSE(seeds.empty());
  for (const std::string& seed : seeds) {
    const auto* data = reinterpret_cast<const std::uint8_t*>(seed.data());
    EXPECT_EQ(LLVMFuzzerTestOneInput(data, seed.size()), 0);
    EXPECT_EQ(LLVMFuzzerTestOneInput(data, seed.size() / 2), 0);
    EXPECT_EQ(LLVMFuzzerTestOneInput(data, seed.size() - (seed.empty() ? 0 : 1)), 0);
  }
}

}  // namespace
}  // namespace execnet
