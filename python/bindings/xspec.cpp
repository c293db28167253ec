// XSpec: the keys of a specification as attributes.
#include <execnet/xspec.hpp>

#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>

#include <string>

#include "bindings.hpp"

namespace execnet::python {
namespace {

nb::object get(const XSpec& spec, const std::string& name) {
  if (name.starts_with('_')) {
    throw nb::attribute_error(("'XSpec' object has no attribute '" + name + "'").c_str());
  }
  if (const auto value = spec.get(name)) {
    return nb::cast(*value);
  }
  return spec.has(name) ? nb::object(nb::bool_(true)) : nb::object(nb::none());
}

void set(XSpec& spec, const std::string& name, nb::handle value) {
  if (name.starts_with('_') || name == "env") {
    throw nb::attribute_error(("'XSpec' attribute '" + name + "' cannot be set").c_str());
  }
  if (value.is_none()) {
    spec.set(name, std::nullopt);
  } else if (nb::isinstance<nb::str>(value)) {
    spec.set(name, nb::cast<std::string>(value));
  } else {
    throw nb::type_error(("XSpec." + name + " must be a str, or None to remove it").c_str());
  }
}

}  // namespace

void bind_xspec(nb::module_& module) {
  nb::class_<XSpec>(module, "XSpec",
                    "A gateway specification: \"type[=value]//key[=value]//...\", with its keys as attributes. A bare\n"
                    "key is True, one that was not given None.\n\n"
                    "    spec = XSpec(\"ssh=host//chdir=run//env:LANG=C\")\n"
                    "    spec.ssh, spec.chdir, spec.env, spec.nice == \"host\", \"run\", {\"LANG\": \"C\"}, None\n\n"
                    "Raises ValueError for a malformed text.")
      .def(nb::init<const std::string&>(), nb::arg("string"))
      .def_prop_ro("_spec", &XSpec::text, "The exact text.")
      .def_prop_ro("env", &XSpec::env, nb::sig("def env(self) -> dict[str, str]"),
                   "A new dict of the variables given with env:NAME=value.")
      .def("__getattr__", &get, nb::sig("def __getattr__(self, name: str) -> typing.Any"))
      .def("__setattr__", &set, nb::arg("name"), nb::arg("value").none(),
           nb::sig("def __setattr__(self, name: str, value: str | None) -> None"))
      .def("__str__", &XSpec::text)
      .def("__repr__", [](const XSpec& spec) { return nb::str("<XSpec {!r}>").format(spec.text()); })
      .def("__hash__", [](const XSpec& spec) { return nb::hash(nb::cast(spec.text())); })
      .def(
          "__eq__",
          [](const XSpec& spec, nb::handle other) {
            const XSpec* same = nullptr;
            return nb::try_cast(other, same) && same != nullptr && *same == spec;
          },
          nb::arg("other").none(), nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__copy__", [](const XSpec& spec) { return spec; })
      .def(
          "_samefilesystem", [](const XSpec& spec) { return spec.has("popen") && !spec.get("chdir"); },
          "Whether a gateway's working directory is this process's own.");
}

}  // namespace execnet::python
