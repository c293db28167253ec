// Kills processes with everything that hangs on them.
#pragma once

#include <span>

#include "process/process.hpp"

namespace execnet::process {

// SIGKILL to the processes and all that they have started. A guard does it by itself, and ends when nothing is left.
// Without a guard: to every descendant that /proc shows as such, those included that
// are forked while this runs: all trees are stopped first and then killed. What has detached itself
// before, by outliving its parent, is no descendant any more. Without a /proc of our own PID namespace its numbers are
// those of strangers. Then only the given processes are killed, and the guard of their fork server kills what they
// have started. What a process keeps (Leniency) is left out, but for our guards. A fleet given at once costs hardly
// more than one process, since the process table is read three or four times in all. Does not wait for the ends.
//
// Any thread. REQUIRES: no null pointers.
void kill_trees(std::span<Process* const> roots);

}  // namespace execnet::process
