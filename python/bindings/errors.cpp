// The library's exceptions as Python classes of the module `execnet`, and what C++ throws as these.
#include <exception>
#include <execnet/error.hpp>
#include <string>
#include <system_error>

#include "bindings.hpp"
#include "gil.hpp"
#include "py_dump.hpp"

namespace execnet::python {
namespace {

// Borrowed: the module holds them, and outlives every function that throws.
struct ErrorTypes {
  PyObject* remote;
  PyObject* timeout;
  PyObject* data_format;
  PyObject* dump;
  PyObject* load;
  PyObject* host_not_found;
  PyObject* gateway_gone;
  PyObject* forked_resource;
  PyObject* channel_closed;
  PyObject* state;
};

PyObject* add_type(nb::module_& module, const char* name, const char* doc, const nb::tuple& bases,
                   const nb::dict& attributes = nb::dict()) {
  const std::string full_name = std::string("execnet.") + name;
  const nb::object type = nb::steal(PyErr_NewExceptionWithDoc(full_name.c_str(), doc, bases.ptr(), attributes.ptr()));
  if (!type.is_valid()) {
    throw nb::python_error();
  }
  module.attr(name) = type;
  return type.ptr();
}

// `formatted` is what the error was made of, so that it survives pickling like the rest.
nb::dict remote_error_attributes() {
  const nb::object property = nb::borrow(reinterpret_cast<PyObject*>(&PyProperty_Type));
  nb::dict attributes;
  attributes["formatted"] = property(nb::cpp_function(
      [](const nb::object& self) -> nb::object {
        const nb::tuple args = nb::cast<nb::tuple>(self.attr("args"));
        return args.empty() ? nb::object(nb::str("")) : nb::object(args[0]);
      },
      nb::sig("def formatted(self) -> str"), nb::is_method(), "The traceback of the other side, as text."));
  attributes["__repr__"] = nb::cpp_function(
      [](const nb::object& self) { return nb::str("{}: {}").format(self.type().attr("__name__"), self); },
      nb::sig("def __repr__(self) -> str"), nb::is_method());
  return attributes;
}

void raise_load_error(PyObject* type, const LoadError& error) {
  const nb::object made = nb::borrow(type)(error.what());
  made.attr("offset") = error.offset();
  PyErr_SetObject(type, made.ptr());
}

void raise_system_error(const std::system_error& error) {
  const nb::object made = nb::borrow(PyExc_OSError)(error.code().value(), error.what());
  PyErr_SetObject(made.type().ptr(), made.ptr());  // OSError chooses a subclass by the number
}

// The most special ones first.
void translate(const std::exception_ptr& thrown, void* payload) {
  sleep_at_end();
  const ErrorTypes& types = *static_cast<const ErrorTypes*>(payload);
  try {
    std::rethrow_exception(thrown);
  } catch (const PythonError&) {  // the exception is set
  } catch (const RemoteError& error) {
    PyErr_SetString(types.remote, error.what());
  } catch (const TimeoutError& error) {
    PyErr_SetString(types.timeout, error.what());
  } catch (const LoadError& error) {
    raise_load_error(types.load, error);
  } catch (const DumpError& error) {
    PyErr_SetString(types.dump, error.what());
  } catch (const DataFormatError& error) {
    PyErr_SetString(types.data_format, error.what());
  } catch (const HostNotFound& error) {
    PyErr_SetString(types.host_not_found, error.what());
  } catch (const ForkedResourceError& error) {
    PyErr_SetString(types.forked_resource, error.what());
  } catch (const GatewayGone& error) {
    PyErr_SetString(types.gateway_gone, error.what());
  } catch (const ChannelClosed& error) {
    PyErr_SetString(types.channel_closed, error.what());
  } catch (const StateError& error) {
    PyErr_SetString(types.state, error.what());
  } catch (const EndOfChannel& error) {
    PyErr_SetString(PyExc_EOFError, error.what());
  } catch (const SpecError& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  } catch (const UnknownGateway& error) {
    PyErr_SetString(PyExc_KeyError, error.what());
  } catch (const std::system_error& error) {
    raise_system_error(error);
  }
}

}  // namespace

void bind_errors(nb::module_& module) {
  const nb::object exception = nb::borrow(PyExc_Exception);
  auto* types = new ErrorTypes{};
  module.attr("_error_types") = nb::capsule(types, [](void* p) noexcept { delete static_cast<ErrorTypes*>(p); });

  types->remote =
      add_type(module, "RemoteError", "The code on the other side raised; `formatted` is its traceback, as text.",
               nb::make_tuple(exception), remote_error_attributes());
  types->timeout = add_type(module, "TimeoutError", "Nothing came within the given time.",
                            nb::make_tuple(nb::borrow(PyExc_TimeoutError)));
  types->data_format =
      add_type(module, "DataFormatError", "A value does not fit the dump format, or bytes are not of it.",
               nb::make_tuple(exception));
  const nb::tuple data_format = nb::make_tuple(nb::borrow(types->data_format));
  types->dump =
      add_type(module, "DumpError", "A value cannot be dumped; the text has the path to the item.", data_format);
  nb::dict load_attributes;
  load_attributes["offset"] = 0;
  types->load = add_type(module, "LoadError", "Bytes cannot be loaded; `offset` tells where in them, in bytes.",
                         data_format, load_attributes);
  types->host_not_found =
      add_type(module, "HostNotFound", "No usable interpreter at the other end of a specification, and why.",
               nb::make_tuple(nb::borrow(PyExc_ConnectionError)));
  types->gateway_gone =
      add_type(module, "GatewayGone", "The other side is gone: its exit status or signal and last words on stderr.",
               nb::make_tuple(nb::borrow(PyExc_OSError), nb::borrow(PyExc_EOFError)));
  types->forked_resource = add_type(module, "ForkedResourceError",
                                    "The gateway belongs to the process that this one was forked from. Make one here.",
                                    nb::make_tuple(nb::borrow(types->gateway_gone)));
  types->channel_closed = add_type(module, "ChannelClosed",
                                   "The channel is closed on this side, or its code has ended: nothing can be sent.",
                                   nb::make_tuple(nb::borrow(PyExc_OSError)));
  // execnet 2.1 raises OSError for these, its next version this RuntimeError.
  types->state =
      add_type(module, "ExecnetStateError",
               "A call that is not allowed in this state, as a second callback is not. To try again does not\n"
               "help; the program is to be changed.",
               nb::make_tuple(nb::borrow(PyExc_RuntimeError), nb::borrow(PyExc_OSError)));
  nb::register_exception_translator(translate, types);
}

}  // namespace execnet::python
