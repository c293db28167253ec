// What the guard (guard/guard.cpp) tells who started it, on the socket that it then watches: whether
// the program runs.
#pragma once

namespace execnet::process {

enum class Step : int {
  kDescriptors,  // to give the program its descriptors
  kGuard,        // to become the guard
  kEquip,        // to have what a guard needs
  kIsolate,      // to make a namespace for it
  kProcess,      // to make a process for the program
  kProgram,      // not the last report: the program's process sends it, and the kernel tells the reader its number
  kExec,         // to become the program
  kRunning,      // done: it runs
  kWatch,        // later on: to watch what it guards, all of which it has killed
};

struct Report {
  Step step;
  int error;  // errno, when that step failed
};

}  // namespace execnet::process
