// The guard as a program to start: guard/guard.cpp says what it does. Any thread.
//
// What it costs, measured on two cores with gateways given at once: 100 start in 1.03 s instead of 1.01 s, end in 0.26
// s instead of 0.24 s, and each has two processes of 72 KB (PSS) more.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "process/process.hpp"

namespace execnet::process {

// The executable, compiled into this library: so there is nothing to install beside it, and nothing to find.
std::string_view guard_program();

// It as a file in memory (memfd_create(2)), close-on-exec. A new one each time, for a few microseconds: a descriptor
// that is kept is closed by programs that become daemons, and its number is then another file's. Throws
// std::system_error for want of descriptors or memory. Returns an invalid descriptor if the file cannot be made or
// cannot be executed. Reasons are a small limit to the size of files (RLIMIT_FSIZE counts for memory files, too, and
// its signal must not come), vm.memfd_noexec=2, or a filter of system calls. Then a forked copy of this process runs
// guard::run(), which is the same code. That costs a copy of this process's page tables (20 ms for 500 MB), and each
// page that this process writes to afterwards.
base::Fd make_guard_file();

// The guard's arguments. `socket` and `coordinator` are descriptors in the guard; without a pidfd the latter is 0. It
// runs the first candidate, a file, that can be executed, with the arguments `argv`. `isolate` asks for a PID
// namespace.
std::vector<std::string> guard_arguments(int socket, int coordinator, bool isolate, const Leniency& leniency,
                                         const std::vector<std::string>& candidates,
                                         const std::vector<std::string>& argv);

}  // namespace execnet::process
