// Makes system calls of some processes fail, each at a chosen time: by a filter that asks this process about each call
// (seccomp_unotify(2)). Needs no privilege.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "base/fd.hpp"

namespace execnet::testing {

class FaultyCalls {
 public:
  // What a call of process `pid` is to come to: an errno, or 0 for what it comes to by itself.
  using Judge = std::function<int(pid_t pid, int call)>;

  // Runs `part` in a thread of its own, whose calls, and those of all the processes that it starts, are judged. `call`
  // is the one that is asked about, or -1: all. `judge` runs in another thread. It must not allocate for the thread of
  // `part`, which may be in the middle of malloc. Returns when `part` has; the processes go on being judged until this
  // ends.
  FaultyCalls(int call, Judge judge, const std::function<void()>& part);
  ~FaultyCalls();
  FaultyCalls(const FaultyCalls&) = delete;
  FaultyCalls& operator=(const FaultyCalls&) = delete;

  // Why there can be none here; empty if there can.
  static std::string unavailable();

 private:
  static constexpr int kNotYet = -1, kNever = -2;

  void run(const base::Fd& stopped);
  void end();

  const Judge judge_;
  std::atomic<int> listener_ = kNotYet;  // the descriptor on which calls are told
  base::Fd stop_;                        // its end ends the judging
  std::thread thread_;
};

// What /proc/PID/exe points to; empty if that is not to be had.
std::string program_of(pid_t pid);

}  // namespace execnet::testing
