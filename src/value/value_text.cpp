#include "value/value_text.hpp"

#include <charconv>
#include <cmath>
#include <limits>
#include <ostream>
#include <span>

#include "base/printable.hpp"
#include "base/utf8.hpp"

namespace execnet {

namespace {

using Type = Value::Type;

// Writes Python's repr(), and stops soon after `limit` bytes: error messages quote values of any size.
class Printer {
 public:
  Printer(std::string& out, std::size_t limit) : out_(out), limit_(limit) {}

  void print(const Value& value) {
    switch (value.type()) {
      case Type::kNone: out_ += "None"; break;
      case Type::kBool: out_ += *value.get_if<bool>() ? "True" : "False"; break;
      case Type::kInt: out_ += std::to_string(*value.get_if<std::int64_t>()); break;
      case Type::kBigInt: out_ += value.get_if<BigInt>()->decimal(); break;
      case Type::kFloat: real(*value.get_if<double>(), ".0"); break;
      case Type::kComplex: complex(*value.get_if<Complex>()); break;
      case Type::kBytes:
        out_ += 'b';
        quoted(value.get_if<Bytes>()->view(), true);
        break;
      case Type::kString: quoted(*value.get_if<std::string>(), false); break;
      case Type::kList: items("[", *value.get_if<List>(), "]"); break;
      case Type::kTuple: items("(", *value.get_if<Tuple>(), value.get_if<Tuple>()->size() == 1 ? ",)" : ")"); break;
      case Type::kSet: set("set()", "{", *value.get_if<Set>(), "}"); break;
      case Type::kFrozenSet: set("frozenset()", "frozenset({", *value.get_if<FrozenSet>(), "})"); break;
      case Type::kDict: dict(*value.get_if<Dict>()); break;
      case Type::kChannel: out_ += "<Channel>"; break;
    }
  }

 private:
  [[nodiscard]] std::size_t left() const { return out_.size() < limit_ ? limit_ - out_.size() : 0; }

  // The shortest digits that read back as the same number, formatted as Python does. `whole` is appended to a whole
  // number.
  void real(double number, const char* whole) {
    if (!std::isfinite(number)) {
      out_ += std::isnan(number) ? "nan" : number > 0 ? "inf" : "-inf";
      return;
    }
    const double size = std::fabs(number);
    const bool fixed = size == 0 || (size >= 1e-4 && size < 1e16);
    char text[32];
    const auto end = std::to_chars(text, text + sizeof text, number,
                                   fixed ? std::chars_format::fixed : std::chars_format::scientific)
                         .ptr;
    const std::string_view written(text, static_cast<std::size_t>(end - text));
    out_ += written;
    if (fixed && written.find('.') == std::string_view::npos) {
      out_ += whole;
    }
  }

  void complex(const Complex& number) {
    const bool imaginary_only = number.real == 0 && !std::signbit(number.real);
    if (!imaginary_only) {
      out_ += '(';
      real(number.real, "");
      if (!std::signbit(number.imag) || std::isnan(number.imag)) {
        out_ += '+';
      }
    }
    real(number.imag, "");
    out_ += imaginary_only ? "j" : "j)";
  }

  void quoted(std::string_view text, bool bytes) {
    const bool escape_high = bytes || !base::is_utf8(text);
    const bool has_single = text.find('\'') != std::string_view::npos;
    const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
    out_ += quote;
    for (const char c : text) {
      const auto byte = static_cast<unsigned char>(c);
      if (left() == 0 && (byte & 0xC0) != 0x80) {  // not within a character
        break;
      }
      if (c == quote || c == '\\') {
        out_ += '\\';
        out_ += c;
      } else if (c == '\n') {
        out_ += "\\n";
      } else if (c == '\r') {
        out_ += "\\r";
      } else if (c == '\t') {
        out_ += "\\t";
      } else if (byte < 0x20 || byte == 0x7F || (byte >= 0x80 && escape_high)) {
        constexpr std::string_view kHex = "0123456789abcdef";
        out_ += "\\x";
        out_ += kHex[byte >> 4];
        out_ += kHex[byte & 15];
      } else {
        out_ += c;
      }
    }
    out_ += quote;
  }

  void items(const char* open, std::span<const Value> items, const char* close) {
    out_ += open;
    for (std::size_t i = 0; i < items.size() && left() > 0; ++i) {
      out_ += i == 0 ? "" : ", ";
      print(items[i]);
    }
    out_ += close;
  }

  void set(const char* empty, const char* open, std::span<const Value> members, const char* close) {
    if (members.empty()) {
      out_ += empty;
    } else {
      items(open, members, close);
    }
  }

  void dict(const Dict& dict) {
    out_ += '{';
    const char* comma = "";
    for (const auto& [key, value] : dict) {
      if (left() == 0) {
        break;
      }
      out_ += comma;
      comma = ", ";
      print(key);
      out_ += ": ";
      print(value);
    }
    out_ += '}';
  }

  std::string& out_;
  const std::size_t limit_;
};

}  // namespace

std::string value::excerpt(const Value& value, std::size_t limit) {
  std::string text;
  Printer(text, limit).print(value);
  text = base::printable(text);
  if (text.size() > limit) {
    while ((static_cast<unsigned char>(text[limit]) & 0xC0) == 0x80) {  // not within a character
      --limit;
    }
    text.resize(limit);
    text += "...";
  }
  return text;
}

std::ostream& operator<<(std::ostream& out, const Value& value) { return out << to_string(value); }

std::string to_string(const Value& value) {
  std::string text;
  Printer(text, std::numeric_limits<std::size_t>::max()).print(value);
  return base::printable(text);
}

std::string_view type_name(Value::Type type) {
  switch (type) {
    case Type::kNone: return "None";
    case Type::kBool: return "bool";
    case Type::kInt:
    case Type::kBigInt: return "int";
    case Type::kFloat: return "float";
    case Type::kComplex: return "complex";
    case Type::kBytes: return "bytes";
    case Type::kString: return "str";
    case Type::kList: return "list";
    case Type::kTuple: return "tuple";
    case Type::kSet: return "set";
    case Type::kFrozenSet: return "frozenset";
    case Type::kDict: return "dict";
    case Type::kChannel: return "Channel";
  }
  return "?";
}

}  // namespace execnet
