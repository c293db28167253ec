// Waits that Ctrl-C ends: every blocking call of the bindings takes its Wait from here.
#pragma once

#include <nanobind/nanobind.h>

#include <cmath>
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

// Throws ValueError for what is no number: it would be waited for for ever.
inline std::optional<base::Seconds> seconds_of(std::optional<double> timeout) {
  if (timeout && std::isnan(*timeout)) {
    throw nanobind::value_error("a timeout is a number of seconds, or None; not nan");
  }
  return timeout ? std::optional(base::Seconds(*timeout)) : std::nullopt;
}

// `timeout` in seconds; none for ever.
inline base::Wait wait_for(std::optional<double> timeout = std::nullopt) {
  return {.deadline = base::deadline_after(seconds_of(timeout)), .interrupted = run_signal_handlers};
}

}  // namespace execnet::python
