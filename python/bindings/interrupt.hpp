// Waits that Ctrl-C ends: every blocking call of the bindings takes its Wait from here.
#pragma once

#include <nanobind/nanobind.h>

#include <optional>

#include "base/wait.hpp"

namespace execnet::python {

// Runs the interpreter's signal handlers; throws what they raise. THREAD: any, without the GIL.
inline void run_signal_handlers() {
  const nanobind::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) {
    throw nanobind::python_error();
  }
}

// `timeout` in seconds; none for ever.
inline base::Wait wait_for(std::optional<double> timeout = std::nullopt) {
  const auto seconds = timeout ? std::optional(base::Seconds(*timeout)) : std::nullopt;
  return {.deadline = base::deadline_after(seconds), .interrupted = run_signal_handlers};
}

}  // namespace execnet::python
