#include "interrupt.hpp"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <limits>
#include <string>

#include "bindings.hpp"
#include "gil.hpp"

namespace execnet::python {
namespace {

// Of a number that is too large for a float.
double infinity_of(nb::handle number) {
  const int negative = PyObject_RichCompareBool(number.ptr(), nb::int_(0).ptr(), Py_LT);
  if (negative < 0) {
    throw nb::python_error();
  }
  return negative == 1 ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
}

nb::object seconds_to_wait(nb::handle timeout) {
  const auto seconds = seconds_of(timeout);
  if (!base::deadline_after(seconds)) {
    return nb::none();
  }
  return nb::float_(std::max(0.0, seconds->count()));
}

}  // namespace

void run_signal_handlers() {
  const WithGil gil;
  if (PyErr_CheckSignals() != 0) {
    throw nb::python_error();
  }
}

std::optional<base::Seconds> seconds_of(nb::handle timeout) {
  if (timeout.is_none()) {
    return std::nullopt;
  }
  double seconds = PyFloat_AsDouble(timeout.ptr());
  if (seconds == -1.0 && PyErr_Occurred() != nullptr) {
    nb::python_error error;
    if (error.matches(PyExc_TypeError)) {
      const auto type = nb::cast<std::string>(timeout.type().attr("__name__"));
      throw nb::type_error(("a timeout is a number of seconds, or None, not " + type).c_str());
    }
    if (!error.matches(PyExc_OverflowError)) {
      throw error;
    }
    seconds = infinity_of(timeout);
  }
  return base::Seconds(seconds);
}

base::Wait wait_for(nb::handle timeout) {
  sleep_at_end();
  return {.deadline = base::deadline_after(seconds_of(timeout)), .interrupted = run_signal_handlers};
}

void bind_interrupt(nb::module_& module) {
  module.def(
      "seconds_to_wait", &seconds_to_wait, nb::arg("timeout").none(),
      nb::sig("def seconds_to_wait(timeout: float | None) -> float | None"),
      "A time-out as the calls of this module understand it, for calls of the standard library: never negative,\n"
      "None for ever. Raises ValueError for nan.");
}

}  // namespace execnet::python
