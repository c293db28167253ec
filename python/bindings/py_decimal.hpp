// Python integers of any size to and from decimal digits. Python's own conversions refuse more than
// 4300 digits and take quadratic time; here a number is halved until the pieces are small.
//
// THREAD: needs the GIL. All throw PythonError.
#pragma once

#include <Python.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "py_ref.hpp"

namespace execnet::python {

// An upper bound of the number of digits, at most one too large. REQUIRES: an exact int.
std::size_t decimal_size(PyObject* integer);

// "-?[0-9]+". REQUIRES: an exact int.
std::string to_decimal(PyObject* integer);

// REQUIRES: "-?[0-9]+".
PyRef from_decimal(std::string_view decimal);

}  // namespace execnet::python
