// What /proc says about processes, for tests.
#pragma once

#include <sys/types.h>

namespace execnet::testing {

// REQUIRES: the process exists.
pid_t parent_of(pid_t pid);

// The process that has started a worker, above its two guards.
pid_t starter_of(pid_t worker);

// Whether a thread of this process waits for something in the kernel.
bool sleeps(pid_t thread);

}  // namespace execnet::testing
