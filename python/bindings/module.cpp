// The extension module execnet._core: a table of contents, and how often there is one.
#include <execnet/version.hpp>
#include <vector>

#include "bindings.hpp"

NB_MODULE(_bindings, module) {
  using namespace execnet::python;
  if (nb::hasattr(module, "__version__")) {  // it is filled already: see the_module()
    return;
  }
#ifdef NDEBUG
  // What a program still holds at its end is its own business.
  nb::set_leak_warnings(false);
#endif
  module.attr("__version__") = execnet::kVersion;
  bind_errors(module);
  bind_interrupt(module);
  bind_dump(module);
  bind_xspec(module);
  bind_received(module);
  bind_overridable(module);
  bind_channel(module);
  bind_gateway(module);
  bind_membership(module);
  bind_rsync(module);
  bind_green(module);
  bind_worker(module);
  bind_fork_server(module);
}

namespace {

// Whether this is a subinterpreter; then an ImportError says so. Python 3.13 calls PyInit__core() in the main
// interpreter first, so it is asked again when the module is made.
bool is_refused_here() {
  if (PyInterpreterState_Get() == PyInterpreterState_Main()) {
    return false;
  }
  PyErr_SetString(PyExc_ImportError,
                  "execnet cannot be imported in a subinterpreter: its types and threads belong to the main "
                  "interpreter. Import and use it there, or run this code in a process of its own.");
  return true;
}

// A new reference to what a weak one refers to; null if it is gone.
PyObject* referent(PyObject* weak) {
  PyObject* object = nullptr;
#if PY_VERSION_HEX >= 0x030D0000
  static_cast<void>(PyWeakref_GetRef(weak, &object));
#else
  object = PyWeakref_GetObject(weak);
  object = object == Py_None ? nullptr : Py_NewRef(object);
#endif
  return object;
}

// Test suites take execnet out of sys.modules and import it again. Its types cannot be registered twice, and what was
// made before is still used: so the module that is there is given again, as long as anything refers to it. Then a
// Gateway, a Channel and the exceptions are of the same types before and after.
PyObject* the_module(PyObject* spec, PyModuleDef* /*definition*/) {
  if (is_refused_here()) {
    return nullptr;
  }
  static PyObject* known = nullptr;  // a weak reference, so that the interpreter can take the module apart at its end
  if (known != nullptr) {
    if (PyObject* const module = referent(known)) {
      return module;
    }
    Py_CLEAR(known);
  }
  PyObject* const name = PyObject_GetAttrString(spec, "name");
  PyObject* const module = name != nullptr ? PyModule_NewObject(name) : nullptr;
  Py_XDECREF(name);
  known = module != nullptr ? PyWeakref_NewRef(module, nullptr) : nullptr;
  return module;
}

// What NB_MODULE has made, with a slot more.
PyObject* with_create_slot(PyObject* made) {
  auto* const definition = reinterpret_cast<PyModuleDef*>(made);
  static std::vector<PyModuleDef_Slot> slots;
  slots.push_back({Py_mod_create, reinterpret_cast<void*>(the_module)});
#if PY_VERSION_HEX >= 0x030C0000
  // Python would refuse isolated ones by itself, but not say what to do: so it lets them come, to be refused here.
  slots.push_back({Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED});
#endif
  const PyModuleDef_Slot* slot = definition->m_slots;
  for (; slot->slot != 0; ++slot) {
#if PY_VERSION_HEX >= 0x030C0000
    if (slot->slot == Py_mod_multiple_interpreters) {
      continue;
    }
#endif
    slots.push_back(*slot);
  }
  slots.push_back(*slot);
  definition->m_slots = slots.data();
  return made;
}

}  // namespace

extern "C" NB_EXPORT PyObject* PyInit__core();   // NOLINT(bugprone-reserved-identifier,readability-identifier-naming)
extern "C" NB_EXPORT PyObject* PyInit__core() {  // NOLINT(bugprone-reserved-identifier,readability-identifier-naming)
  if (is_refused_here()) {
    return nullptr;
  }
  static PyObject* definition = nullptr;
  if (definition == nullptr) {
    if (PyObject* const made = PyInit__bindings()) {
      definition = with_create_slot(made);
    }
  }
  return definition;
}
