// dumps, loads, dump and load: Python values as bytes that outlive a connection.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cstdint>
#include <execnet/dump.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "bindings.hpp"
#include "gil.hpp"
#include "py_dump.hpp"
#include "py_lent.hpp"
#include "wire/decoder.hpp"
#include "wire/limits.hpp"
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
  ValueReader(nb::object read, std::size_t max_bytes) : read_(std::move(read)), max_bytes_(max_bytes) {}

  // What is not a value is left for the decoder to complain about.
  base::Buffer read() && {
    take(1);  // the version
    while (take(1) && bytes_.view().back() != static_cast<char>(wire::Op::kStop) &&
           take_operand(static_cast<wire::Op>(bytes_.view().back()))) {
    }
    return std::move(bytes_);
  }

 private:
  static constexpr std::uint64_t kMostAtOnce = 1 << 20;  // a length may be a lie

  // False when the file ended before. Throws LoadError for more than is wanted, and reads none of that.
  bool take(std::uint64_t size) {
    if (size > max_bytes_ - bytes_.size()) {
      throw LoadError("more than " + std::to_string(max_bytes_) + " bytes", max_bytes_);
    }
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

  bool take_operand(wire::Op op) {
    const auto operand = wire::operand_of(op);
    if (!operand || !take(operand->width)) {
      return false;
    }
    if (!operand->is_length) {
      return true;
    }
    std::uint64_t size = 0;
    for (const char byte : bytes_.view().substr(bytes_.size() - operand->width)) {
      size = size << 8 | static_cast<unsigned char>(byte);
    }
    const bool negative = (size >> (operand->width * 8 - 1)) != 0;
    return !negative && take(size);
  }

  nb::object read_;
  const std::size_t max_bytes_;
  base::Buffer bytes_;
};

// Those that are given. Raises ValueError for a negative one.
LoadLimits limits(std::optional<std::int64_t> max_bytes, std::optional<std::int64_t> max_items) {
  LoadLimits limits;
  for (const auto& [given, limit] :
       {std::pair(max_bytes, &limits.max_bytes), std::pair(max_items, &limits.max_items)}) {
    if (given && *given < 0) {
      throw nb::value_error("a limit must not be negative");
    }
    *limit = given ? static_cast<std::size_t>(*given) : *limit;
  }
  return limits;
}

Decoded decode_dump(std::string_view bytes, StringConfig strings, const LoadLimits& limits) {
  const std::size_t start = wire::check_version(bytes);
  wire::check_limits(bytes, start, limits);
  return decode(bytes, nullptr, strings, start);
}

nb::object loads(nb::handle bytestring, bool py2str_as_py3str, bool py3str_as_py2str,
                 std::optional<std::int64_t> max_bytes, std::optional<std::int64_t> max_items) {
  sleep_at_end();
  const View view(bytestring);
  const Decoded decoded = decode_dump(view.bytes(), {py2str_as_py3str, py3str_as_py2str}, limits(max_bytes, max_items));
  nb::object value = nb::steal(decoded.object);
  wire::check_end(view.bytes(), decoded.end);
  return value;
}

void dump(const nb::object& stream, nb::handle value) {
  sleep_at_end();
  stream.attr("write")(dumps(value));
}

nb::object load(const nb::object& stream, bool py2str_as_py3str, bool py3str_as_py2str,
                std::optional<std::int64_t> max_bytes, std::optional<std::int64_t> max_items) {
  sleep_at_end();
  const LoadLimits most = limits(max_bytes, max_items);
  const base::Buffer bytes = ValueReader(stream.attr("read"), most.max_bytes).read();
  return nb::steal(decode_dump(bytes.view(), {py2str_as_py3str, py3str_as_py2str}, most).object);
}

}  // namespace

void bind_dump(nb::module_& module) {
  module.def("dumps", &dumps, nb::arg("obj").none(), nb::sig("def dumps(obj: object) -> bytes"),
             "The bytes of a value of builtin types, for loads() anywhere. Raises DumpError.");
  module.def("dump", &dump, nb::arg("byteio"), nb::arg("obj").none(),
             nb::sig("def dump(byteio: execnet._streams.Writer, obj: object) -> None"),
             "Writes the bytes of a value to a binary file. Raises DumpError.");
  module.def("loads", &loads, nb::arg("bytestring"), nb::arg("py2str_as_py3str") = false,
             nb::arg("py3str_as_py2str") = false, nb::arg("max_bytes") = nb::none(), nb::arg("max_items") = nb::none(),
             nb::sig("def loads(bytestring: bytes | bytearray | memoryview, py2str_as_py3str: bool = False, "
                     "py3str_as_py2str: bool = False, max_bytes: int | None = None, max_items: int | None = None) -> "
                     "typing.Any"),
             "The value that dumps() has made bytes of. Strings of Python 2 become str if `py2str_as_py3str`, else\n"
             "bytes; those of Python 3 become bytes if `py3str_as_py2str`. With limits, more bytes or a value of more\n"
             "items, at all depths and with the keys of dicts, is refused before it is made. Raises LoadError.");
  module.def(
      "load", &load, nb::arg("io"), nb::arg("py2str_as_py3str") = false, nb::arg("py3str_as_py2str") = false,
      nb::arg("max_bytes") = nb::none(), nb::arg("max_items") = nb::none(),
      nb::sig("def load(io: execnet._streams.Reader, py2str_as_py3str: bool = False, py3str_as_py2str: bool = False, "
              "max_bytes: int | None = None, max_items: int | None = None) -> typing.Any"),
      "The next value in a binary file; otherwise as loads().");
}

}  // namespace execnet::python
