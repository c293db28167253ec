// Forks: a copy of this process has our objects, but not our threads, and shares our descriptors.
// Whoever owns such things remembers which process made them, and leaves them alone in a copy.
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

// In a forked copy: a thread of the original, of which there is nothing here, not even the stack. To detach
// it would touch that.
inline void forget(std::thread& thread) { ::new (&thread) std::thread(); }

}  // namespace execnet::base
