// Forks: a forked copy of this process has our objects but not our threads, and shares our descriptors.
// Objects with threads or descriptors remember the process that made them and do nothing in a copy.
#pragma once

#include <cstdint>
#include <new>
#include <thread>

namespace execnet::base {

// Differs between a process and every process forked from it, directly or not. Costs no system
// call. Any thread.
std::uint64_t process_generation();

// Remembers the process it was made in.
class MadeHere {
 public:
  [[nodiscard]] bool in_forked_copy() const { return process_generation() != generation_; }

 private:
  std::uint64_t generation_ = process_generation();
};

// In a forked copy: forgets a thread of the original. There is nothing of it here, not even its stack, which detach()
// would touch.
inline void forget(std::thread& thread) { ::new (&thread) std::thread(); }

}  // namespace execnet::base
