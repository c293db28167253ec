// Imports of the worker's own.
//
// The path of a worker begins with the working directory, for the code that runs there. A file there may have the name
// of any module, and what the worker itself imports must not come from there. So the line on the command line takes the
// directory off the path, and puts it back when the worker is up. After that, the worker imports inside of an
// InstalledImports. Its finder leaves the directory out, for the calling thread only.
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
