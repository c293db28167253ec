// Received bytes as Python memory: what a memoryview shows that was made without a copy.
#pragma once

#include <nanobind/nanobind.h>

#include "base/buffer.hpp"

namespace execnet::python {

namespace nb = nanobind;

// A read-only memoryview of all of it, and its owner. THREAD: needs the GIL. Throws nb::python_error.
nb::object memory_of(base::Buffer bytes);

}  // namespace execnet::python
