// Values whose type has the name of a builtin one.
#pragma once

#include "py_ref.hpp"

namespace execnet::python {

// numpy.bool_ of NumPy 2 is named "bool": such a value is dumped as what its name says, as execnet 2.1 does. The value
// of the builtin type, or null when the type has another name or the value is not of that kind. Throws PythonError for
// what code of the program raises meanwhile. THREAD: needs the GIL.
PyRef builtin_named_as_type_of(PyObject* item);

}  // namespace execnet::python
