// What a coordinator and its fork server say to each other over a unix stream socket. Both are on one machine, so it is
// in that machine's byte order. worker/fork_server.py has the same, and the words to it; tests/vectors/forks.txt has
// the bytes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace execnet::core {

enum class ForkRequestKind : std::uint32_t {
  kFork = 1,
  kCollect = 2,  // a worker that has ended
  kKill = 3,     // and to collect it: one that cannot be signalled from here
  kWatch = 4,    // and to collect it when it has ended: where the coordinator has no pidfds
};

// A kFork has kForkDescriptors with it: the worker's stream, its stderr until it serves, its stdout, and its stderr
// after that.
struct ForkRequest {
  ForkRequestKind kind = ForkRequestKind::kFork;
  std::uint32_t number = 0;
};
inline constexpr std::size_t kForkDescriptors = 4;

enum class ForkAnswerKind : std::uint32_t {
  kReady = 1,    // the modules are imported; the text is the PID namespace
  kForked = 2,   // the value is the pid
  kRefused = 3,  // the text is why
  kEnded = 4,    // the worker is collected, after kCollect or kKill; the value is its status as waitpid() has it, -1 if
                 // that is not known
  kGone = 5,     // the same of one that is watched: once, when it has ended. All other answers are in the order of the
                 // requests
};

// `length` bytes of text follow.
struct ForkAnswer {
  ForkAnswerKind kind = ForkAnswerKind::kReady;
  std::uint32_t number = 0;
  std::int32_t value = 0;
  std::uint32_t length = 0;
};
inline constexpr std::uint32_t kMostForkText = 4096;

}  // namespace execnet::core
