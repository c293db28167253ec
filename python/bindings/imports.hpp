// Imports of the worker's own.
//
// The path of a worker begins with the working directory, for the code that runs there. A file there may have the name
// of any module: what the worker itself imports must not come from there. So the line on the command line takes the
// directory off the path, and it is put back when the worker is up. What is imported after that is imported inside of
// an InstalledImports, by whose finder the calling thread alone leaves the directory out.
#pragma once

#include <nanobind/nanobind.h>

namespace execnet::python {

namespace nb = nanobind;

// All REQUIRE the interpreter's lock.
class InstalledImports {
 public:
  InstalledImports();
  ~InstalledImports();
  InstalledImports(const InstalledImports&) = delete;
  InstalledImports& operator=(const InstalledImports&) = delete;
};

nb::object import_installed(const char* name);

// Unless the interpreter was told (-I, -P) to leave it out, or it is there.
void restore_working_directory();

}  // namespace execnet::python
