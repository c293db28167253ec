#include "py_named.hpp"

#include <array>
#include <cstring>
#include <string_view>

#include "py_dump.hpp"

namespace execnet::python {
namespace {

PyObject* as_none(PyObject* /*item*/) { return PyRef::borrow(Py_None).release(); }

PyObject* as_bool(PyObject* item) {
  const int truth = PyObject_IsTrue(item);
  return truth < 0 ? nullptr : PyBool_FromLong(truth);
}

PyObject* as_float(PyObject* item) {
  const double value = PyFloat_AsDouble(item);
  return PyErr_Occurred() != nullptr ? nullptr : PyFloat_FromDouble(value);
}

PyObject* as_complex(PyObject* item) {
  std::array<double, 2> parts{};
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const PyRef part = PyRef::steal(PyObject_GetAttrString(item, i == 0 ? "real" : "imag"));
    parts[i] = part ? PyFloat_AsDouble(part.get()) : 0;
    if (PyErr_Occurred() != nullptr) {
      return nullptr;
    }
  }
  return PyComplex_FromDoubles(parts[0], parts[1]);
}

PyObject* as_dict(PyObject* item) {
  const PyRef items = PyRef::steal(PyMapping_Items(item));
  PyRef dict = PyRef::steal(items ? PyDict_New() : nullptr);
  if (!dict || PyDict_MergeFromSeq2(dict.get(), items.get(), 1) != 0) {
    return nullptr;
  }
  return dict.release();
}

struct Builtin {
  std::string_view name;
  PyObject* (*make)(PyObject*);
};

constexpr std::array<Builtin, 13> kBuiltins{{{"NoneType", as_none},
                                             {"bool", as_bool},
                                             {"bytes", PyBytes_FromObject},
                                             {"complex", as_complex},
                                             {"dict", as_dict},
                                             {"float", as_float},
                                             {"frozenset", PyFrozenSet_New},
                                             {"int", PyNumber_Index},
                                             {"list", PySequence_List},
                                             {"long", PyNumber_Index},
                                             {"set", PySet_New},
                                             {"str", PyUnicode_FromObject},
                                             {"tuple", PySequence_Tuple}}};

}  // namespace

PyRef builtin_named_as_type_of(PyObject* item) {
  const char* const full = Py_TYPE(item)->tp_name;  // of a type made in C with its module
  const char* const dot = std::strrchr(full, '.');
  const std::string_view name = dot == nullptr ? full : dot + 1;
  for (const Builtin& builtin : kBuiltins) {
    if (builtin.name != name) {
      continue;
    }
    PyRef value = PyRef::steal(builtin.make(item));
    if (!value) {
      if (PyErr_ExceptionMatches(PyExc_TypeError) == 0 && PyErr_ExceptionMatches(PyExc_AttributeError) == 0) {
        throw PythonError();
      }
      PyErr_Clear();
    }
    return value;
  }
  return PyRef();
}

}  // namespace execnet::python
