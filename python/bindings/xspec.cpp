// XSpec: the keys of a specification as attributes.
#include "xspec.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>

#include <map>
#include <string>
#include <utility>

#include "bindings.hpp"
#include "gil.hpp"
#include "transport/transport.hpp"

namespace execnet::python {
namespace {

using Self = nb::handle_t<XSpec>;

// What is not text lies here: `env` once it was asked for, and what the program keeps for itself.
nb::dict attributes(nb::handle self) { return nb::steal<nb::dict>(PyObject_GenericGetDict(self.ptr(), nullptr)); }

nb::object get(const XSpec& spec, const std::string& name) {
  if (name.starts_with('_')) {
    throw nb::attribute_error(("'XSpec' object has no attribute '" + name + "'").c_str());
  }
  if (const auto value = spec.get(name)) {
    return nb::cast(*value);
  }
  return spec.has(name) ? nb::object(nb::bool_(true)) : nb::object(nb::none());
}

void set(Self self, const nb::str& key, nb::handle value) {
  sleep_at_end();
  const std::string name = nb::cast<std::string>(key);
  if (name == "_spec") {
    throw nb::attribute_error("the text of an XSpec cannot be set: make another one");
  }
  auto& spec = nb::cast<XSpec&>(self);
  nb::dict own = attributes(self);
  own.attr("pop")(key, nb::none());
  spec.set(name, std::nullopt);
  if (name == "env" || name.starts_with('_')) {
    own[key] = value;
  } else if (nb::isinstance<nb::str>(value)) {
    spec.set(name, nb::cast<std::string>(value));
  } else if (value.ptr() == Py_True) {
    spec.set_bare(name);
  } else if (!value.is_none()) {
    own[key] = value;
    if (PyLong_CheckExact(value.ptr()) != 0 || PyFloat_CheckExact(value.ptr()) != 0) {  // nice = 10, grace = 0.5
      spec.set(name, nb::cast<std::string>(nb::str(value)));
    } else if (nb::hasattr(value, "__fspath__")) {  // chdir = Path("run")
      spec.set(name, nb::cast<std::string>(nb::module_::import_("os").attr("fspath")(value)));
    }
  }
}

nb::object env(Self self) {
  sleep_at_end();
  nb::dict own = attributes(self);
  if (!own.contains("env")) {
    own["env"] = nb::cast(nb::cast<const XSpec&>(self).env());
  }
  return own["env"];
}

// All attributes, as __dict__ shows them: a copy.
nb::dict all_attributes(Self self) {
  const auto& spec = nb::cast<const XSpec&>(self);
  nb::dict all;
  all["_spec"] = spec.text();
  all["env"] = env(self);
  for (const auto& [key, value] : spec.settings()) {
    all[key.c_str()] = value ? nb::cast(*value) : nb::object(nb::bool_(true));
  }
  all.update(attributes(self));  // of a path or a number the object that was set
  return all;
}

PyObject* dict_of(PyObject* self, void* /*closure*/) noexcept {
  try {
    const nb::dict all = nb::inst_ready(self) ? all_attributes(Self(self)) : nb::dict();
    return nb::object(all).release().ptr();
  } catch (nb::python_error& error) {
    error.restore();
    return nullptr;
  }
}

PyGetSetDef attribute_table[] = {{"__dict__", dict_of, nullptr, nullptr, nullptr}, {}};
const PyType_Slot kSlots[] = {{Py_tp_getset, static_cast<void*>(attribute_table)}, {0, nullptr}};

void remove(Self self, const nb::str& key) {
  const nb::dict all = all_attributes(self);
  if (!all.contains(key) || key.equal(nb::str("_spec"))) {
    throw nb::attribute_error(("'XSpec' object has no attribute '" + nb::cast<std::string>(key) + "'").c_str());
  }
  set(self, key, nb::none());
  attributes(self).attr("pop")(key, nb::none());
}

// Another one with the same attributes, for copies and pickles.
void set_state(Self self, const nb::dict& all) {
  auto& spec = nb::cast<XSpec&>(self);
  const auto settings = spec.settings();
  for (const auto& [key, value] : settings) {
    spec.set(key, std::nullopt);
  }
  for (const auto& [key, value] : all) {
    if (!key.equal(nb::str("_spec"))) {
      set(self, nb::cast<nb::str>(key), value);
    }
  }
}

nb::tuple reduce(Self self, int /*protocol*/) {
  sleep_at_end();
  const nb::dict all = all_attributes(self);
  return nb::make_tuple(self.type(), nb::make_tuple(all["_spec"]), all);
}

nb::object copy(Self self) {
  sleep_at_end();
  const nb::dict all = all_attributes(self);
  nb::object result = self.type().attr("__new__")(self.type());
  nb::handle(nb::type<XSpec>()).attr("__init__")(result, all["_spec"]);
  all["env"] = all["env"].attr("copy")();
  set_state(nb::handle_t<XSpec>(result), all);
  return result;
}

}  // namespace

XSpec spec_of(nb::handle object) {
  XSpec spec = nb::cast<const XSpec&>(object);
  const nb::dict own = attributes(object);
  if (own.contains("env")) {
    std::map<std::string, std::string> variables;
    if (!nb::try_cast(own["env"], variables)) {
      throw nb::type_error("XSpec.env must be a dict of str to str");
    }
    spec.set_env(std::move(variables));
  }
  return spec;
}

nb::object output_of(nb::handle object) {
  const nb::dict own = attributes(object);
  if (!own.contains("stdout") || nb::cast<const XSpec&>(object).get("stdout")) {  // a path, say, is text as well
    return nb::object();
  }
  nb::object output = own["stdout"];
  if (PyCallable_Check(output.ptr()) == 0) {
    throw nb::type_error("XSpec.stdout must be text or a function that takes text");
  }
  return output;
}

void bind_xspec(nb::module_& module) {
  nb::class_<XSpec>(module, "XSpec", nb::dynamic_attr(), nb::type_slots(kSlots),
                    "A gateway specification: \"type[=value]//key[=value]//...\", with its keys as attributes. A bare\n"
                    "key is True, one that was not given None.\n\n"
                    "    spec = XSpec(\"ssh=host//chdir=run//env:LANG=C\")\n"
                    "    spec.ssh, spec.chdir, spec.env, spec.nice == \"host\", \"run\", {\"LANG\": \"C\"}, None\n\n"
                    "Raises ValueError for a malformed text.")
      .def(nb::init<const std::string&>(), nb::arg("string"))
      .def_prop_ro("_spec", &XSpec::text, "The exact text.")
      .def_prop_ro("env", &env, nb::sig("def env(self) -> dict[str, str]"),
                   "The variables given with env:NAME=value; may be changed.")
      .def("__getattr__", &get, nb::sig("def __getattr__(self, name: str) -> typing.Any"))
      .def("__setattr__", &set, nb::arg("name"), nb::arg("value").none(),
           nb::sig("def __setattr__(self, name: str, value: object) -> None"))
      .def("__delattr__", &remove, nb::arg("name"), nb::sig("def __delattr__(self, name: str) -> None"))
      .def("__reduce_ex__", &reduce, nb::arg("protocol"),
           nb::sig("def __reduce_ex__(self, protocol: typing.SupportsIndex) -> tuple[typing.Any, ...]"))
      .def("__setstate__", &set_state, nb::arg("state"),
           nb::sig("def __setstate__(self, state: dict[str, typing.Any]) -> None"))
      .def("__str__", &XSpec::text)
      .def("__repr__",
           [](const XSpec& spec) { return nb::str("<XSpec {!r}>").format(transport::without_secrets(spec.text())); })
      .def("__hash__", [](const XSpec& spec) { return nb::hash(nb::cast(spec.text())); })
      .def(
          "__eq__",
          [](const XSpec& spec, nb::handle other) {
            const XSpec* same = nullptr;
            return nb::try_cast(other, same) && same != nullptr && *same == spec;
          },
          nb::arg("other").none(), nb::sig("def __eq__(self, other: object, /) -> bool"))
      .def("__copy__", &copy, nb::sig("def __copy__(self) -> XSpec"))
      .def(
          "_samefilesystem", [](const XSpec& spec) { return spec.has("popen") && !spec.get("chdir"); },
          "Whether a gateway's working directory is this process's own.");
}

}  // namespace execnet::python
