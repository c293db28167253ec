#include "gateway/standard_streams.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

#include "base/syscall.hpp"
#include "wire/frame.hpp"

namespace execnet::core {
namespace {

Dict hello(const char* in, const char* out, const char* err) {
  return Dict{{"stdin", in}, {"stdout", out}, {"stderr", err}};
}

TEST(StandardStreams, AreWhatHelloSays) {
  const auto streams = StandardStreams::from_hello(hello("devnull", "stderr", "close"));
  EXPECT_EQ(streams.in, Standard::kDevnull);
  EXPECT_EQ(streams.out, Standard::kStderr);
  EXPECT_EQ(streams.err, Standard::kClose);
  EXPECT_TRUE(streams.any_closed());
  EXPECT_FALSE(StandardStreams::from_hello(hello("inherit", "callback", "inherit")).any_closed());
}

TEST(StandardStreams, WhatIsNoneOfThemIsRefused) {
  EXPECT_THROW(StandardStreams::from_hello(hello("stderr", "inherit", "inherit")), wire::ProtocolError);
  EXPECT_THROW(StandardStreams::from_hello(hello("inherit", "null", "inherit")), wire::ProtocolError);
  EXPECT_THROW(StandardStreams::from_hello(hello("inherit", "inherit", "callback")), wire::ProtocolError);
  EXPECT_THROW(StandardStreams::from_hello(Dict{}), std::exception);
}

// What a process has that does this; it says so by its exit status, since it may have no other way.
int status_after(const StandardStreams& streams, int (*check)()) {
  const pid_t child = ::fork();
  if (child == 0) {
    streams.apply();
    ::_exit(check());
  }
  int status = 0;
  base::check("waitpid", [&] { return ::waitpid(child, &status, 0); });
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(StandardStreams, TheNullDeviceIsEmptyAndTakesAll) {
  const StandardStreams streams{Standard::kDevnull, Standard::kDevnull, Standard::kDevnull};
  EXPECT_EQ(status_after(streams,
                         [] {
                           char byte = 0;
                           return ::read(0, &byte, 1) == 0 && ::write(1, "x", 1) == 1 && ::write(2, "x", 1) == 1 ? 0
                                                                                                                 : 1;
                         }),
            0);
}

TEST(StandardStreams, CallsFailOnWhatIsClosedAndItsNumberIsNotFree) {
  const StandardStreams streams{Standard::kClose, Standard::kClose, Standard::kClose};
  EXPECT_EQ(status_after(streams,
                         [] {
                           char byte = 0;
                           const bool fail = ::read(0, &byte, 1) < 0 && errno == EBADF && ::write(1, "x", 1) < 0 &&
                                             errno == EBADF && ::write(2, "x", 1) < 0 && errno == EBADF;
                           std::array<int, 2> ends{};
                           return fail && ::pipe(ends.data()) == 0 && ends[0] > 2 ? 0 : 1;
                         }),
            0);
}

}  // namespace
}  // namespace execnet::core
