// What the guard (guard/guard.cpp) tells who started it, on the socket that it then watches: once,
// whether the program runs.
#pragma once

#include <sys/types.h>

namespace execnet::process {

enum class Step : int {
  kDescriptors,  // to give the program its descriptors
  kGuard,        // to become the guard
  kIsolate,      // to make a namespace for it
  kProcess,      // to make a process for the program
  kExec,         // to become the program
  kRunning,      // done: it runs
};

struct Report {
  Step step;
  int error;  // errno, when that step failed
  pid_t pid;  // of the program, when it runs
};

}  // namespace execnet::process
