// The Python class XSpec.
#pragma once

#include <nanobind/nanobind.h>

#include <execnet/xspec.hpp>

namespace execnet::python {

// What an XSpec object says, with what the program has set on it. THREAD: needs the GIL.
// Throws python_error when its `env` is no dict of strings.
XSpec spec_of(nanobind::handle object);

// Its `stdout`, if that is a function and no text: what the worker prints is to be given to it. Else null. Throws
// TypeError for what is neither.
nanobind::object output_of(nanobind::handle object);

}  // namespace execnet::python
