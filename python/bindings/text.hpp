// Python text for the wire and for messages. THREAD: needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <exception>
#include <string>

#include "imports.hpp"

namespace execnet::python {

// UTF-8, whatever is in the str: lone surrogates (bytes of a path, say) are written out.
inline std::string portable(nanobind::handle text) {
  const auto bytes = nanobind::steal<nanobind::bytes>(
      PyUnicode_AsEncodedString(nanobind::str(text).ptr(), "utf-8", "backslashreplace"));
  if (!bytes.is_valid()) {
    throw nanobind::python_error();
  }
  return {bytes.c_str(), bytes.size()};
}

// An exception of Python in a line, whatever its class does.
inline std::string summary_of(const nanobind::python_error& error) {
  std::string name = portable(error.type().attr("__name__"));
  try {
    return name + ": " + portable(error.value());
  } catch (const nanobind::python_error&) {
    return name;
  }
}

// The traceback of an exception of Python. Not its what(): that crashes on lone surrogates, and knows no source lines.
inline std::string traceback_of(const nanobind::python_error& error) {
  const nanobind::object trace = error.traceback();
  try {
    const InstalledImports installed;  // it imports when it is used, too
    const nanobind::object parts =
        nanobind::module_::import_("traceback")
            .attr("format_exception")(error.type(), error.value(), trace.is_valid() ? trace : nanobind::none());
    return portable(nanobind::str("").attr("join")(parts));
  } catch (const nanobind::python_error& failure) {
    return summary_of(error) + " (its traceback cannot be shown: " + summary_of(failure) + ")";
  }
}

// What an exception says; that of Python with its traceback.
inline std::string text_of(const std::exception& error) {
  const auto* raised = dynamic_cast<const nanobind::python_error*>(&error);
  return raised != nullptr ? traceback_of(*raised) : error.what();
}

}  // namespace execnet::python
