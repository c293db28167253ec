#include "py_dump.hpp"

#include <charconv>
#include <cstring>
#include <string>
#include <utility>

#include "base/huge_pages.hpp"
#include "py_arenas.hpp"
#include "py_decimal.hpp"
#include "py_lent.hpp"
#include "py_named.hpp"
#include "py_ref.hpp"
#include "py_words.hpp"
#include "wire/decoder.hpp"
#include "wire/encoder.hpp"

namespace execnet::python {

namespace {

PyRef own(PyObject* object) {
  if (object == nullptr) [[unlikely]] {
    throw PythonError();
  }
  return PyRef::steal(object);
}

std::size_t unsigned_size(Py_ssize_t size) { return static_cast<std::size_t>(size); }

// For messages: an object whose repr() raises is not worth another exception.
std::string repr_of(PyObject* object, std::size_t limit) {
  const PyRef text = PyRef::steal(PyObject_Repr(object));
  Py_ssize_t size = 0;
  const PyRef bytes = PyRef::steal(text ? PyUnicode_AsEncodedString(text.get(), "utf-8", "backslashreplace") : nullptr);
  char* data = nullptr;
  if (!bytes || PyBytes_AsStringAndSize(bytes.get(), &data, &size) != 0) {
    PyErr_Clear();
    return std::string("<") + Py_TYPE(object)->tp_name + " object>";
  }
  std::string result(data, unsigned_size(size));
  if (result.size() > limit) {
    while ((static_cast<unsigned char>(result[limit]) & 0xC0) == 0x80) {  // not within a character
      --limit;
    }
    result.resize(limit);
    result += "...";
  }
  return result;
}

class ObjectSource {
 public:
  using Item = PyObject*;
  using Sink = wire::Encoder<ObjectSource>;

  explicit ObjectSource(ChannelTable* channels) : channels_(channels) {}

  void visit(PyObject* item, Sink& sink) {
    const PyTypeObject* type = Py_TYPE(item);
    if (type == &PyLong_Type) {
      integer(item, sink);
    } else if (type == &PyUnicode_Type) {
      string(item, sink);
    } else if (type == &PyFloat_Type) {
      sink.real(PyFloat_AS_DOUBLE(item));
    } else if (item == Py_None) {
      sink.none();
    } else if (type == &PyBool_Type) {
      sink.boolean(item == Py_True);
    } else if (type == &PyBytes_Type) {
      sink.bytes({PyBytes_AS_STRING(item), unsigned_size(PyBytes_GET_SIZE(item))}, [item] { return lend(item); });
    } else {
      // While a container is written, code of the program may run: the garbage collector's, say. Hold
      // what it could take away.
      const PyRef hold = PyRef::borrow(item);
      visit_container(item, type, sink);
    }
  }

  static std::string repr(PyObject* item) { return repr_of(item, 80); }

 private:
  void visit_container(PyObject* item, const PyTypeObject* type, Sink& sink) {
    if (type == &PyDict_Type) {
      sink.dict([item](auto&& visit_pair) {
        PyObject* key = nullptr;
        PyObject* value = nullptr;
        for (Py_ssize_t at = 0; PyDict_Next(item, &at, &key, &value) != 0;) {
          const PyRef hold_key = PyRef::borrow(key);
          const PyRef hold_value = PyRef::borrow(value);
          visit_pair(key, value);
        }
      });
    } else if (type == &PyList_Type) {
      sink.list(unsigned_size(PyList_GET_SIZE(item)), [item, &sink](std::size_t i) {
        if (i >= unsigned_size(PyList_GET_SIZE(item))) [[unlikely]] {
          sink.refuse("list changed size while it was serialized");
        }
        return PyList_GET_ITEM(item, static_cast<Py_ssize_t>(i));
      });
    } else if (type == &PyTuple_Type) {
      sink.tuple(unsigned_size(PyTuple_GET_SIZE(item)),
                 [item](std::size_t i) { return PyTuple_GET_ITEM(item, static_cast<Py_ssize_t>(i)); });
    } else if (type == &PySet_Type) {
      set(wire::Op::kSet, item, sink);
    } else if (type == &PyFrozenSet_Type) {
      set(wire::Op::kFrozenSet, item, sink);
    } else if (type == &PyComplex_Type) {
      sink.complex(PyComplex_RealAsDouble(item), PyComplex_ImagAsDouble(item));
    } else if (channels_ != nullptr && PyObject_TypeCheck(item, channels_->type()) != 0) {
      channel(item, sink);
    } else if (const PyRef builtin = builtin_named_as_type_of(item)) {
      visit(builtin.get(), sink);
    } else if (channels_ != nullptr && PyObject_CheckBuffer(item) != 0 && PyBytes_Check(item) == 0) {
      buffer(item, sink);
    } else {
      refuse_type(item, sink);
    }
  }

  [[noreturn]] static void refuse_type(PyObject* item, Sink& sink) {
    // The path first: repr() of a type may run code of the program, which may change what is on the path.
    const std::string path = sink.path();
    throw DumpError("can't serialize " + repr_of(reinterpret_cast<PyObject*>(Py_TYPE(item)), 200) + path);
  }

  static void buffer(PyObject* item, Sink& sink) {
    PyRef view = own(PyMemoryView_FromObject(item));
    const Py_buffer& memory = *PyMemoryView_GET_BUFFER(view.get());
    if (memory.ndim == 0) {
      refuse_type(item, sink);  // a number of NumPy's, say, whose bytes nobody wants
    }
    if (PyBuffer_IsContiguous(&memory, 'C') == 0) {
      const PyRef bytes = own(PyObject_CallMethod(view.get(), "tobytes", nullptr));
      sink.bytes({PyBytes_AS_STRING(bytes.get()), unsigned_size(PyBytes_GET_SIZE(bytes.get()))},
                 [&bytes] { return lend(bytes.get()); });
      return;
    }
    sink.bytes({static_cast<const char*>(memory.buf), unsigned_size(memory.len)}, [&view] { return lend(view.get()); });
  }

  static void integer(PyObject* item, Sink& sink) {
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(item, &overflow);
    if (overflow == 0) [[likely]] {
      sink.integer(value);
    } else if (decimal_size(item) > wire::kMaxDigits + 1) {
      sink.refuse_digits();
    } else {
      sink.decimal(to_decimal(item));
    }
  }

  static void string(PyObject* item, Sink& sink) {
    if (PyUnicode_IS_COMPACT_ASCII(item)) [[likely]] {
      sink.string({static_cast<const char*>(PyUnicode_DATA(item)), unsigned_size(PyUnicode_GET_LENGTH(item))},
                  [item] { return lend(item); });
      return;
    }
    // Not PyUnicode_AsUTF8: that would keep its result for as long as the str lives.
    const PyRef utf8 = PyRef::steal(PyUnicode_AsUTF8String(item));
    if (!utf8) {
      if (PyErr_ExceptionMatches(PyExc_UnicodeEncodeError) == 0) {
        throw PythonError();
      }
      PyErr_Clear();
      sink.refuse("strings must be utf-8 encodable");
    }
    sink.string({PyBytes_AS_STRING(utf8.get()), unsigned_size(PyBytes_GET_SIZE(utf8.get()))},
                [&utf8] { return lend(utf8.get()); });
  }

  static void set(wire::Op op, PyObject* item, Sink& sink) {
    sink.set(op, unsigned_size(PySet_GET_SIZE(item)), [item](auto&& visit_member) {
      const PyRef iterator = own(PyObject_GetIter(item));
      while (const PyRef member = PyRef::steal(PyIter_Next(iterator.get()))) {
        visit_member(member.get());
      }
      if (PyErr_Occurred() != nullptr) {  // it was changed meanwhile
        throw PythonError();
      }
    });
  }

  void channel(PyObject* item, Sink& sink) {
    std::uint32_t id = 0;
    try {
      id = channels_->id_of(item);
    } catch (const DumpError& error) {  // knows why, but not where
      sink.refuse(error.what());
    }
    sink.channel(id);
  }

  ChannelTable* channels_;
};

class ObjectBuilder {
 public:
  using Item = PyRef;

  ObjectBuilder(ChannelTable* channels, std::string_view input, PyObject* memory)
      : channels_(channels), input_(input), memory_(memory), words_(input.size()) {
    arenas::begin();
  }

  static PyRef none() { return PyRef::borrow(Py_None); }
  static PyRef boolean(bool value) { return PyRef::borrow(value ? Py_True : Py_False); }
  static PyRef integer(std::int32_t value) {
    arenas::expect(sizeof(PyLongObject));
    return own(PyLong_FromLong(value));
  }
  [[gnu::noinline]] static PyRef decimal(std::string_view digits) {
    std::int64_t small = 0;
    if (std::from_chars(digits.data(), digits.data() + digits.size(), small).ec == std::errc()) {
      return own(PyLong_FromLongLong(small));
    }
    return from_decimal(digits);
  }
  static PyRef real(double value) {
    arenas::expect(sizeof(PyFloatObject));
    return own(PyFloat_FromDouble(value));
  }
  static PyRef complex(double real, double imag) { return own(PyComplex_FromDoubles(real, imag)); }
  [[gnu::noinline]] PyRef bytes(std::string_view bytes) {
    if (memory_ == nullptr || bytes.size() < base::Rope::kWorthLending) [[likely]] {
      arenas::expect(sizeof(PyBytesObject) + bytes.size());
      return PyRef::steal(new_bytes(bytes));
    }
    const auto begin = bytes.data() - input_.data();
    const PyRef from = own(PyLong_FromSsize_t(begin));
    const PyRef to = own(PyLong_FromSsize_t(begin + static_cast<Py_ssize_t>(bytes.size())));
    const PyRef part = own(PySlice_New(from.get(), to.get(), nullptr));
    return own(PyObject_GetItem(memory_, part.get()));
  }
  static PyRef latin1(std::string_view bytes) {
    return own(PyUnicode_DecodeLatin1(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), nullptr));
  }
  PyRef string(std::string_view utf8) { return words_.get(utf8, new_string); }
  PyRef channel(std::uint32_t id) {
    if (channels_ == nullptr) {
      throw wire::Malformed{"a channel outside of a connection"};
    }
    return own(channels_->channel(id));
  }

  // Has the memory for all its items, and says that it has none: what the collector sees of it is always whole.
  static PyRef list(std::size_t size) {
    PyRef list = own(PyList_New(static_cast<Py_ssize_t>(size)));
    Py_SET_SIZE(reinterpret_cast<PyVarObject*>(list.get()), 0);
    return list;
  }
  static PyRef dict() { return own(PyDict_New()); }
  template <typename Next>
  static PyRef tuple(std::size_t size, Next&& next) {
    PyRef tuple = own(PyTuple_New(static_cast<Py_ssize_t>(size)));
    for (std::size_t i = 0; i < size; ++i) {
      PyTuple_SET_ITEM(tuple.get(), static_cast<Py_ssize_t>(i), next().release());
    }
    return tuple;
  }
  template <typename Next>
  static PyRef set(std::size_t size, Next&& next) {
    return fill(own(PySet_New(nullptr)), size, next);
  }
  template <typename Next>
  static PyRef frozen_set(std::size_t size, Next&& next) {
    return fill(own(PyFrozenSet_New(nullptr)), size, next);
  }
  static void set_item(PyRef& list, std::size_t index, PyRef value) {
    const auto at = static_cast<Py_ssize_t>(index);
    if (at < PyList_GET_SIZE(list.get())) [[unlikely]] {
      const PyRef before = PyRef::steal(PyList_GET_ITEM(list.get(), at));
      PyList_SET_ITEM(list.get(), at, value.release());
      return;
    }
    fill_up(list, index);
    append(list, std::move(value));
  }
  static void fill_up(PyRef& list, std::size_t size) {
    while (unsigned_size(PyList_GET_SIZE(list.get())) < size) [[unlikely]] {
      append(list, none());
    }
  }
  static void set_item(PyRef& dict, PyRef key, PyRef value) {
    if (PyDict_SetItem(dict.get(), key.get(), value.get()) != 0) {
      throw PythonError();
    }
  }

 private:
  [[gnu::noinline]] static PyRef new_string(std::string_view utf8) {
    arenas::expect(sizeof(PyASCIIObject) + utf8.size() + 1);
    PyObject* text = PyUnicode_DecodeUTF8(utf8.data(), static_cast<Py_ssize_t>(utf8.size()), nullptr);
    if (text == nullptr && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError) != 0) {
      PyErr_Clear();
      throw wire::Malformed{"a string that is not UTF-8"};
    }
    return own(text);
  }

  // REQUIRES: it has memory for one more.
  static void append(PyRef& list, PyRef value) {
    const Py_ssize_t size = PyList_GET_SIZE(list.get());
    PyList_SET_ITEM(list.get(), size, value.release());
    Py_SET_SIZE(reinterpret_cast<PyVarObject*>(list.get()), size + 1);
  }

  template <typename Next>
  static PyRef fill(PyRef set, std::size_t size, Next&& next) {
    for (std::size_t i = 0; i < size; ++i) {
      if (PySet_Add(set.get(), PyRef(next()).get()) != 0) {
        throw PythonError();
      }
    }
    return set;
  }

  ChannelTable* channels_;
  std::string_view input_;
  PyObject* memory_;  // of the input; null: nobody asked for it
  Words words_;
};

// While it lives no garbage is collected. Of a value that is being made nothing can be garbage, and the collector would
// look through all of it again and again. From 3.12 on it waits by itself until code of Python goes on.
class CollectorWaits {
 public:
  explicit CollectorWaits(std::size_t input_size)
      : was_enabled_(PY_VERSION_HEX < 0x030C0000 && input_size >= kWorthIt && PyGC_Disable() != 0) {}
  ~CollectorWaits() {
    if (was_enabled_) {
      PyGC_Enable();
    }
  }
  CollectorWaits(const CollectorWaits&) = delete;
  CollectorWaits& operator=(const CollectorWaits&) = delete;

 private:
  static constexpr std::size_t kWorthIt = 4096;  // bytes: the value of less is hardly looked through once

  bool was_enabled_;
};

}  // namespace

PyObject* new_bytes(std::string_view bytes) {
  if (bytes.size() < base::kLarge) {
    return own(PyBytes_FromStringAndSize(bytes.data(), static_cast<Py_ssize_t>(bytes.size()))).release();
  }
  PyObject* const object = new_bytes(bytes.size());
  std::memcpy(PyBytes_AS_STRING(object), bytes.data(), bytes.size());
  return object;
}

PyObject* new_bytes(std::size_t size) {
  PyRef object = own(PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size)));
  base::want_huge_pages(PyBytes_AS_STRING(object.get()), size);
  return object.release();
}

void encode(PyObject* object, base::Rope& out, ChannelTable* channels) {
  ObjectSource source(channels);
  wire::Encoder<ObjectSource>(source, out).encode(object);
}

Decoded decode(std::string_view bytes, ChannelTable* channels, StringConfig strings, std::size_t start,
               PyObject* memory) {
  const CollectorWaits collector(bytes.size());
  ObjectBuilder builder(channels, bytes, memory);
  wire::Decoder<ObjectBuilder> decoder(builder, bytes, strings, start);
  PyRef object = decoder.decode();
  return {object.release(), decoder.end()};
}

}  // namespace execnet::python
