// Waits that Ctrl-C ends, and how long they are: every blocking call of the bindings takes its Wait from here.
#pragma once

#include <nanobind/nanobind.h>

#include <optional>

#include "base/wait.hpp"

namespace execnet::python {

// Runs the interpreter's signal handlers; throws what they raise. THREAD: any, without the GIL.
void run_signal_handlers();

// A time-out of Python: seconds as whatever converts to a float, or None for ever. Throws TypeError for anything else,
// and ValueError, as base::deadline_after() does, for nan. THREAD: needs the GIL.
std::optional<base::Seconds> seconds_of(nanobind::handle timeout);

// A wait that ends so long from now. None waits for ever; for that the call does not need the GIL.
base::Wait wait_for(nanobind::handle timeout = Py_None);

}  // namespace execnet::python
