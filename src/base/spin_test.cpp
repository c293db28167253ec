#include "base/spin.hpp"

#include <gtest/gtest.h>
#include <sched.h>

namespace execnet::base {
namespace {

using std::chrono::microseconds;

class SpinTest : public ::testing::Test {
 protected:
  void SetUp() override {
    cpu_set_t cpus;
    if (::sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) == 1) {
      GTEST_SKIP() << "only one processor is there";
    }
  }
  // Whether it looks for longer than a moment.
  bool tries() {
    int looks = 0;
    EXPECT_FALSE(spin.until([&] {
      ++looks;
      return false;
    }));
    return looks > 1;
  }
  // Until it has given up; how often it tried.
  int give_up() {
    int tried = 0;
    while (tries()) {
      ++tried;
    }
    return tried;
  }

  Spin spin;
};

TEST_F(SpinTest, SeesWhatComesMeanwhile) {
  int looks = 0;
  EXPECT_TRUE(spin.until([&] { return ++looks == 20; }));
}

TEST_F(SpinTest, GivesUpAfterAFewTriesInVain) {
  EXPECT_GT(give_up(), 1);
  EXPECT_TRUE(spin.until([] { return true; }));  // what is there already is seen all the same
  EXPECT_FALSE(tries());
}

// As long as a round trip takes when both sides sleep: else two that do would never stop it.
TEST_F(SpinTest, TriesAgainAfterWaitsOfAConversationButSeldom) {
  give_up();
  for (int round = 0; round < 20; ++round) {
    int waits = 0;
    while (waits < 1000 && !tries()) {
      spin.slept(microseconds(100));
      ++waits;
    }
    EXPECT_GT(waits, round == 0 ? 4 : 8);
    EXPECT_LT(waits, 200);
  }
}

TEST_F(SpinTest, LongWaitsDoNotCount) {
  give_up();
  for (int i = 0; i < 1000; ++i) {
    spin.slept(std::chrono::milliseconds(1));
    EXPECT_FALSE(tries());
  }
}

TEST_F(SpinTest, OneSuccessAndItTriesAsBefore) {
  const int first = give_up();
  for (bool seen = false; !seen;) {
    spin.slept(microseconds(1));
    int looks = 0;
    seen = spin.until([&] { return ++looks == 2; });
  }
  EXPECT_EQ(give_up(), first);
}

TEST_F(SpinTest, GivesUpWhenAllComesLate) {
  int came = 0;
  for (bool tried = true; tried && came < 100'000;) {
    int looks = 0;
    const auto begin = std::chrono::steady_clock::now();
    const bool ready = spin.until([&] {
      ++looks;
      return std::chrono::steady_clock::now() - begin > microseconds(30);
    });
    came += ready ? 1 : 0;
    tried = ready || looks > 1;
  }
  EXPECT_GT(came, 100);
  EXPECT_LT(came, 100'000);
}

}  // namespace
}  // namespace execnet::base
