#include "imports.hpp"

#include "bindings.hpp"
#include "transport/transport.hpp"

namespace execnet::python {
namespace {

thread_local int inside = 0;  // so many InstalledImports

nb::object modules() { return nb::module_::import_("sys").attr("modules"); }

// As importlib calls it. Raises ModuleNotFoundError where another finder would look into the directory next.
nb::object find_spec(nb::handle self, const nb::object& name, const nb::object& path, const nb::object& target) {
  if (inside == 0 || !path.is_none()) {
    return nb::none();
  }
  const nb::object sys = nb::module_::import_("sys");
  const nb::object path_finder = modules()["_frozen_importlib_external"].attr("PathFinder");
  nb::list installed;
  for (const nb::handle entry : sys.attr("path")) {
    if (!entry.equal(nb::str(""))) {
      installed.append(entry);
    }
  }
  for (const nb::handle finder : nb::list(sys.attr("meta_path"))) {
    if (finder.is(self) || !nb::hasattr(finder, "find_spec")) {
      continue;
    }
    nb::object spec =
        finder.attr("find_spec")(name, finder.is(path_finder) ? nb::object(installed) : nb::none(), target);
    if (!spec.is_none()) {
      return spec;
    }
  }
  const nb::object error =
      nb::borrow(PyExc_ModuleNotFoundError)(nb::str("No module named {!r}").format(name), nb::arg("name") = name);
  PyErr_SetObject(PyExc_ModuleNotFoundError, error.ptr());
  throw nb::python_error();
}

// For sys.meta_path. Never destroyed: the interpreter may be gone by then.
nb::object finder() {
  static nb::object& made = *[] {
    auto* type = new nb::object();
    nb::dict attributes;
    *type = nb::borrow(reinterpret_cast<PyObject*>(&PyType_Type))("InstalledFinder", nb::tuple(), attributes);
    const nb::handle self = *type;
    type->attr("find_spec") =
        nb::cpp_function([self](const nb::object& name, const nb::object& path,
                                const nb::object& target) { return find_spec(self, name, path, target); },
                         nb::arg("name"), nb::arg("path") = nb::none(), nb::arg("target") = nb::none());
    return type;
  }();
  return made;
}

}  // namespace

InstalledImports::InstalledImports() {
  const nb::object path = nb::module_::import_("sys").attr("meta_path");
  if (!nb::cast<bool>(path.attr("__contains__")(finder()))) {
    path.attr("insert")(0, finder());
  }
  ++inside;
}

InstalledImports::~InstalledImports() { --inside; }

nb::object import_installed(const char* name) {
  if (nb::object loaded = modules().attr("get")(name); !loaded.is_none()) {
    return loaded;
  }
  const InstalledImports installed;
  return nb::module_::import_(name);
}

void restore_working_directory() {
  const nb::object sys = nb::module_::import_("sys");
  const nb::object flags = sys.attr("flags");
  const auto is_set = [&](const char* name) {
    return PyObject_IsTrue(nb::getattr(flags, name, nb::bool_(false)).ptr()) == 1;  // safe_path is of 3.11
  };
  const nb::object environ = import_installed("os").attr("environ");
  const bool only_at_start = environ.attr("get")(transport::kSafePath).equal(nb::str(transport::kOnlyAtStart));
  if (only_at_start) {
    environ.attr("pop")(transport::kSafePath);
  }
  const bool left_out = is_set("isolated") || (is_set("safe_path") && !only_at_start);
  const nb::object path = sys.attr("path");
  if (!left_out && !nb::cast<bool>(path.attr("__contains__")(""))) {
    path.attr("insert")(0, "");
  }
}

}  // namespace execnet::python
