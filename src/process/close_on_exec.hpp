// Keeps the descriptors of the embedding program out of the programs we start.
#pragma once

namespace execnet::process {

// Marks every descriptor from `first` on close-on-exec. Async-signal-safe: runs between vfork and
// exec. Does its best and reports nothing: a descriptor too many in a child is no reason not to
// start it.
void close_all_on_exec(int first);

// The same for kernels without close_range(CLOSE_RANGE_CLOEXEC), that is before Linux 5.11: goes
// through /proc/self/fd. False when that cannot be read.
bool close_listed_on_exec(int first);

}  // namespace execnet::process
