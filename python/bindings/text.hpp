// Python text for the wire and for messages. THREAD: needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

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

}  // namespace execnet::python
