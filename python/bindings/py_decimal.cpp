#include "py_decimal.hpp"

#include <array>
#include <vector>

#include "py_dump.hpp"

namespace execnet::python {

namespace {

// Python converts up to 640 digits whatever its limit is set to.
constexpr std::size_t kPiece = 512;

PyRef check(PyObject* object) {
  if (object == nullptr) {
    throw PythonError();
  }
  return PyRef::steal(object);
}

std::size_t digits_of_piece(std::size_t level) { return kPiece << level; }

// 10 ** digits_of_piece(level), by level.
class Powers {
 public:
  PyObject* at(std::size_t level) {
    while (powers_.size() <= level) {
      if (powers_.empty()) {
        const std::string one = '1' + std::string(kPiece, '0');
        powers_.push_back(check(PyLong_FromString(one.c_str(), nullptr, 10)));
      } else {
        PyObject* last = powers_.back().get();
        powers_.push_back(check(PyNumber_Multiply(last, last)));
      }
    }
    return powers_[level].get();
  }

 private:
  std::vector<PyRef> powers_;
};

std::string small_to_decimal(PyObject* integer) {
  const PyRef text = check(PyObject_Str(integer));
  Py_ssize_t size = 0;
  const char* digits = PyUnicode_AsUTF8AndSize(text.get(), &size);
  if (digits == nullptr) {
    throw PythonError();
  }
  return {digits, static_cast<std::size_t>(size)};
}

// Appends exactly 2 * digits_of_piece(level) digits, leading zeros included. `levels` is level + 1.
void append_digits(PyObject* integer, std::size_t levels, Powers& powers, std::string& out) {
  if (levels == 0) {
    const std::string digits = small_to_decimal(integer);
    out.append(kPiece - digits.size(), '0').append(digits);
    return;
  }
  const PyRef halves = check(PyNumber_Divmod(integer, powers.at(levels - 1)));
  append_digits(PyTuple_GET_ITEM(halves.get(), 0), levels - 1, powers, out);
  append_digits(PyTuple_GET_ITEM(halves.get(), 1), levels - 1, powers, out);
}

PyRef parse_digits(std::string_view digits, Powers& powers) {
  if (digits.size() <= kPiece) {
    std::array<char, kPiece + 1> text{};
    digits.copy(text.data(), digits.size());
    return check(PyLong_FromString(text.data(), nullptr, 10));
  }
  std::size_t level = 0;
  while (digits_of_piece(level + 1) < digits.size()) {
    ++level;
  }
  const std::size_t split = digits.size() - digits_of_piece(level);
  const PyRef high = parse_digits(digits.substr(0, split), powers);
  const PyRef low = parse_digits(digits.substr(split), powers);
  const PyRef shifted = check(PyNumber_Multiply(high.get(), powers.at(level)));
  return check(PyNumber_Add(shifted.get(), low.get()));
}

}  // namespace

std::size_t decimal_size(PyObject* integer) {
  const PyRef length = check(PyObject_CallMethod(integer, "bit_length", nullptr));
  const std::size_t bits = PyLong_AsSize_t(length.get());
  if (bits == static_cast<std::size_t>(-1) && PyErr_Occurred() != nullptr) {
    throw PythonError();
  }
  constexpr double kDigitsPerBit = 0.30102999566398120;
  return static_cast<std::size_t>(static_cast<double>(bits) * kDigitsPerBit) + 1;
}

std::string to_decimal(PyObject* integer) {
  const std::size_t size = decimal_size(integer);
  if (size <= kPiece) {
    return small_to_decimal(integer);
  }
  std::size_t levels = 1;
  while (digits_of_piece(levels) < size) {
    ++levels;
  }
  const PyRef magnitude = check(PyNumber_Absolute(integer));
  std::string digits;
  Powers powers;
  append_digits(magnitude.get(), levels, powers, digits);
  digits.erase(0, digits.find_first_not_of('0'));
  const int negative = PyObject_Not(PyRef(check(PyObject_RichCompare(integer, magnitude.get(), Py_EQ))).get());
  return negative == 1 ? '-' + digits : digits;
}

PyRef from_decimal(std::string_view decimal) {
  const bool negative = decimal.front() == '-';
  Powers powers;
  PyRef magnitude = parse_digits(decimal.substr(negative ? 1 : 0), powers);
  return negative ? check(PyNumber_Negative(magnitude.get())) : std::move(magnitude);
}

}  // namespace execnet::python
