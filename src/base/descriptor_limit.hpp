// The soft limit to descriptors (RLIMIT_NOFILE): raised when it is too low, as far as the hard one allows. Any thread.
#pragma once

#include <cstddef>

namespace execnet::base {

// Before so many descriptors are opened. Raises the limit only if it leaves no room for them: code that uses select(2)
// cannot wait for descriptors from 1024 on, and a program may have reasons for its limit.
void make_room_for_descriptors(std::size_t count);

// The soft limit that this process had before it was raised, for its children; 0 if it was not, or somebody else has
// set it since. Async-signal-safe.
std::size_t descriptor_limit_before();

}  // namespace execnet::base
