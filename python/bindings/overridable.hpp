// Attributes that programs may set on an object, and tests patch, as if they were plain ones.
#pragma once

#include <nanobind/nanobind.h>

#include <utility>

namespace execnet::python {

namespace nb = nanobind;

// In a class: what an attribute of the object is as long as nobody has set it. Not a property, which goes before what
// is set. THREAD: needs the GIL.
struct Overridable {
  nb::object getter;
};

template <typename Getter>
void def_overridable(nb::handle type, const char* name, Getter&& getter) {
  type.attr(name) = nb::cast(Overridable{nb::cpp_function(std::forward<Getter>(getter))});
}

}  // namespace execnet::python
