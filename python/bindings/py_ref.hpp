// An owned reference to a Python object. For the code that is too hot for nanobind's.
//
// THREAD: needs the GIL, for destruction too.
#pragma once

#include <Python.h>

#include <utility>

namespace execnet::python {

class PyRef {
 public:
  PyRef() = default;
  // Takes a reference over.
  static PyRef steal(PyObject* object) { return PyRef(object); }
  // Adds a reference.
  static PyRef borrow(PyObject* object) {
    Py_XINCREF(object);
    return PyRef(object);
  }
  PyRef(PyRef&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  PyRef& operator=(PyRef&& other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  PyRef(const PyRef&) = delete;
  PyRef& operator=(const PyRef&) = delete;
  ~PyRef() { Py_XDECREF(object_); }

  [[nodiscard]] PyObject* get() const { return object_; }
  [[nodiscard]] PyObject* release() { return std::exchange(object_, nullptr); }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  explicit PyRef(PyObject* object) : object_(object) {}

  PyObject* object_ = nullptr;
};

}  // namespace execnet::python
