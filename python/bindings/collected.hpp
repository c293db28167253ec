// Classes with attributes of the program's own whose objects hold another object: what the collector of garbage has to
// know of both, since either may refer back. THREAD: needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

namespace execnet::python {

// `nanobind::type_slots(Collected<T, &T::member>::kSlots)` of such a class. After a collection the member may be empty.
template <typename T, nanobind::object T::* kMember>
struct Collected {
  static int traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(*_PyObject_GetDictPtr(self));
    if (nanobind::inst_ready(self)) {
      Py_VISIT((nanobind::inst_ptr<T>(self)->*kMember).ptr());
    }
    return 0;
  }

  static int clear(PyObject* self) {
    Py_CLEAR(*_PyObject_GetDictPtr(self));
    if (nanobind::inst_ready(self)) {
      (nanobind::inst_ptr<T>(self)->*kMember).reset();
    }
    return 0;
  }

  static inline const PyType_Slot kSlots[] = {
      {Py_tp_traverse, reinterpret_cast<void*>(traverse)}, {Py_tp_clear, reinterpret_cast<void*>(clear)}, {0, nullptr}};
};

}  // namespace execnet::python
