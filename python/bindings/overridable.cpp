#include "overridable.hpp"

#include "bindings.hpp"

namespace execnet::python {

void bind_overridable(nb::module_& module) {
  nb::class_<Overridable>(module, "_Overridable", "An attribute with a value until it is set.")
      .def(
          "__get__",
          [](const nb::object& self, const nb::object& object, const nb::object& /*type*/) {
            return object.is_none() ? self : nb::cast<const Overridable&>(self).getter(object);
          },
          nb::arg("instance").none(), nb::arg("owner").none() = nb::none());
}

}  // namespace execnet::python
