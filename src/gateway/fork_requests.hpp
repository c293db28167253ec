// The far side of fork_protocol.hpp: reads the coordinator's requests, forks a worker for each, remembers the workers
// and collects them. It knows nothing of an interpreter: what a fork means to that is a Forkable's business.
// worker/fork_server.py does the same in Python, for pure workers; tests/vectors/forks.txt keeps the two alike.
//
// Owner: a fork server. One thread.
#pragma once

#include <sys/socket.h>
#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/fork_protocol.hpp"

namespace execnet::core {

// A process that is to be forked, as far as it is more than what this module knows.
class Forkable {
 public:
  Forkable() = default;
  virtual ~Forkable() = default;
  Forkable(const Forkable&) = delete;
  Forkable& operator=(const Forkable&) = delete;

  // Why it cannot be forked now; empty if it can be.
  virtual std::string why_not_to_fork() = 0;
  // Is called before each fork(2). What it does may last for several of them.
  virtual void be_still() = 0;
  // The next request is waited for from here to go_on(); not for long if it `is_there`.
  virtual void rest(bool is_there) = 0;
  virtual void go_on() = 0;
};

// What a worker is given, in the order in which it comes. All have higher numbers than those they are to get.
using ForkDescriptors = std::array<int, kForkDescriptors>;

// In a worker: gives them those numbers. Throws std::system_error.
void take(const ForkDescriptors& passed);

class ForkRequests {
 public:
  // The socket and `process` live longer.
  ForkRequests(int control, Forkable& process) : control_(control), process_(process) {}

  // Answers all requests: none when no more will come. Or, in a worker that it has forked: the worker's descriptors.
  std::optional<ForkDescriptors> answer();

  // Those who are not collected.
  [[nodiscard]] std::vector<pid_t> workers() const;

 private:
  // In one piece, so that as few pages as can be are written to after each fork.
  struct Worker {
    std::uint32_t number;  // of its request
    pid_t pid;
  };
  using Workers = std::vector<Worker>;

  // These three are false when the coordinator is gone.
  bool receive(ForkRequest& request, ForkDescriptors& passed);
  [[nodiscard]] bool say(ForkAnswerKind kind, std::uint32_t number, std::int32_t value,
                         std::string_view text = "") const;
  bool tell_of_ends();

  ssize_t receive(msghdr& message);
  Workers::iterator find(std::uint32_t number);
  std::int32_t collect(std::uint32_t number, bool kill);

  const int control_;
  Forkable& process_;
  Workers workers_;                     // until they are collected; in order
  std::vector<std::uint32_t> watched_;  // of them; mostly none
};

}  // namespace execnet::core
