// Python objects to and from the bytes that frames carry, without a Value in between.
//
// THREAD: every function needs the GIL, and keeps it.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <execnet/dump.hpp>

#include "base/rope.hpp"

namespace execnet::python {

// Thrown when a Python exception is set; whoever catches it returns to the interpreter.
struct PythonError {};

// Who knows the channels of a connection.
class ChannelTable {
 public:
  explicit ChannelTable(PyTypeObject* type) : type_(type) {}

  // Instances of this type are channels. Borrowed.
  [[nodiscard]] PyTypeObject* type() const { return type_; }
  // The id under which the other side will know the channel; throws DumpError if it is none of this connection.
  virtual std::uint32_t id_of(PyObject* channel) = 0;
  // A new reference to the channel of that id, made if there is none yet; nullptr with a Python exception set.
  virtual PyObject* channel(std::uint32_t id) = 0;

 protected:
  ~ChannelTable() = default;  // not owned through this class

 private:
  PyTypeObject* type_;
};

// A new bytes object. Throws PythonError.
PyObject* new_bytes(std::string_view bytes);
// The same, to be written by the caller.
PyObject* new_bytes(std::size_t size);

// Appends the object, of one of the builtin types, or of one of that name: None, bool, int, float, complex, bytes, str,
// list, tuple, set, frozenset, dict, or a channel; and what has the buffer protocol (arrays, bytearray, memoryview),
// which becomes bytes. Without a table the last two are refused. Throws DumpError with the path to what cannot be
// dumped, and PythonError; `out` is then as before.
void encode(PyObject* object, base::Rope& out, ChannelTable* channels);

struct Decoded {
  PyObject* object = nullptr;  // a new reference
  std::size_t end = 0;         // where the value ended in `bytes`
};

// The value that `bytes` has at `start`; what follows it is the caller's matter (wire::check_end).
// Throws LoadError, whose offset counts from the beginning of `bytes`, and PythonError.
// Where `memory`, a memoryview of `bytes`, is given, large bytes objects become parts of it instead of copies.
Decoded decode(std::string_view bytes, ChannelTable* channels, StringConfig strings, std::size_t start = 0,
               PyObject* memory = nullptr);

}  // namespace execnet::python
