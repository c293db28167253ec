// dumps, loads, dump and load: Python values as bytes that outlive a connection.
#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <utility>

#include "bindings.hpp"
#include "gil.hpp"
#include "py_dump.hpp"
#include "py_lent.hpp"
#include "wire/decoder.hpp"
#include "wire/opcode.hpp"

namespace execnet::python {
namespace {

nb::bytes dumps(nb::handle value) {
  sleep_at_end();
  const DropsReturned end;
  base::Rope out;
  out.own().push_back(wire::kDumpVersion);
  encode(value.ptr(), out, nullptr);
  if (out.is_plain()) {
    return nb::steal<nb::bytes>(new_bytes(out.view()));
  }
  PyObject* const bytes = new_bytes(out.size());
  out.copy_to(PyBytes_AS_STRING(bytes));
  return nb::steal<nb::bytes>(bytes);
}

// The bytes of whatever has the buffer protocol, for as long as this lives.
class View {
 public:
  explicit View(nb::handle object) {
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) {
      throw nb::python_error();
    }
  }
  ~View() { PyBuffer_Release(&view_); }
  View(const View&) = delete;
  View& operator=(const View&) = delete;
  [[nodiscard]] std::string_view bytes() const {
    return {static_cast<const char*>(view_.buf), static_cast<std::size_t>(view_.len)};
  }

 private:
  Py_buffer view_{};  // holds the object
};

// Takes one dumped value out of a file, and not a byte more: others may follow.
class ValueReader {
 public:
  explicit ValueReader(nb::object read) : read_(std::move(read)) {}

  // What is not a value is left for the decoder to complain about.
  base::Buffer read() && {
    take(1);  // the version
    while (take(1) && bytes_.view().back() != static_cast<char>(wire::Op::kStop) &&
           take_data(static_cast<wire::Op>(bytes_.view().back()))) {
    }
    return std::move(bytes_);
  }

 private:
  static constexpr std::uint64_t kMostAtOnce = 1 << 20;  // a length may be a lie

  // False when the file ended before.
  bool take(std::uint64_t size) {
    while (size > 0) {
      const View piece(read_(std::min(size, kMostAtOnce)));
      if (piece.bytes().empty()) {
        return false;
      }
      bytes_.append(piece.bytes());
      size -= std::min<std::uint64_t>(size, piece.bytes().size());
    }
    return true;
  }

  bool take_counted(std::size_t width) {
    if (!take(width)) {
      return false;
    }
    std::uint64_t size = 0;
    for (const char byte : bytes_.view().substr(bytes_.size() - width)) {
      size = size << 8 | static_cast<unsigned char>(byte);
    }
    const bool negative = (size >> (width * 8 - 1)) != 0;
    return !negative && take(size);
  }

  bool take_data(wire::Op op) {
    using wire::Op;
    switch (op) {
      case Op::kBytes:
      case Op::kPy2String:
      case Op::kPy3String:
      case Op::kUnicode:
      case Op::kLongInt:
      case Op::kLongLong: return take_counted(4);
      case Op::kBytes8:
      case Op::kString8: return take_counted(8);
      case Op::kBuildTuple:
      case Op::kChannel:
      case Op::kSet:
      case Op::kFrozenSet:
      case Op::kInt:
      case Op::kLong:
      case Op::kNewList: return take(4);
      case Op::kFloat: return take(8);
      case Op::kComplex: return take(16);
      case Op::kFalse:
      case Op::kTrue:
      case Op::kNone:
      case Op::kNewDict:
      case Op::kSetItem:
      case Op::kStop: return true;
    }
    return false;  // no opcode
  }

  nb::object read_;
  base::Buffer bytes_;
};

nb::object loads(nb::handle bytestring, bool py2str_as_py3str, bool py3str_as_py2str) {
  sleep_at_end();
  const View view(bytestring);
  const Decoded decoded =
      decode(view.bytes(), nullptr, {py2str_as_py3str, py3str_as_py2str}, wire::check_version(view.bytes()));
  nb::object value = nb::steal(decoded.object);
  wire::check_end(view.bytes(), decoded.end);
  return value;
}

void dump(const nb::object& stream, nb::handle value) {
  sleep_at_end();
  stream.attr("write")(dumps(value));
}

nb::object load(const nb::object& stream, bool py2str_as_py3str, bool py3str_as_py2str) {
  sleep_at_end();
  const base::Buffer bytes = ValueReader(stream.attr("read")).read();
  const Decoded decoded =
      decode(bytes.view(), nullptr, {py2str_as_py3str, py3str_as_py2str}, wire::check_version(bytes.view()));
  return nb::steal(decoded.object);
}

}  // namespace

void bind_dump(nb::module_& module) {
  module.def("dumps", &dumps, nb::arg("obj").none(), nb::sig("def dumps(obj: object) -> bytes"),
             "The bytes of a value of builtin types, for loads() anywhere. Raises DumpError.");
  module.def("dump", &dump, nb::arg("byteio"), nb::arg("obj").none(),
             nb::sig("def dump(byteio: execnet._streams.Writer, obj: object) -> None"),
             "Writes the bytes of a value to a binary file. Raises DumpError.");
  module.def("loads", &loads, nb::arg("bytestring"), nb::arg("py2str_as_py3str") = false,
             nb::arg("py3str_as_py2str") = false,
             nb::sig("def loads(bytestring: bytes | bytearray | memoryview, py2str_as_py3str: bool = False, "
                     "py3str_as_py2str: bool = False) -> typing.Any"),
             "The value that dumps() has made bytes of. Strings of Python 2 become str if `py2str_as_py3str`, else\n"
             "bytes; those of Python 3 become bytes if `py3str_as_py2str`. Raises LoadError.");
  module.def(
      "load", &load, nb::arg("io"), nb::arg("py2str_as_py3str") = false, nb::arg("py3str_as_py2str") = false,
      nb::sig("def load(io: execnet._streams.Reader, py2str_as_py3str: bool = False, py3str_as_py2str: bool = False) "
              "-> typing.Any"),
      "The next value in a binary file; otherwise as loads().");
}

}  // namespace execnet::python
