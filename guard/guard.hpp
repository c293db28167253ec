// What a guard does, from its start to its end: see guard.cpp.
#pragma once

#include <sys/types.h>

namespace execnet::guard {

// With the arguments of execnet-guard. `owns_arguments`: they are this process's own, as the kernel shows them to all,
// and are taken from there. To be called by a process that was made for it, which has one thread.
[[noreturn]] void run(int argc, char** argv, char** envp, bool owns_arguments);

// As fork(2), without what a C library does at it: it takes locks, which in a copy of a program with other threads may
// never be let go. The child calls nothing that allocates or locks.
pid_t fork_plainly();

}  // namespace execnet::guard
