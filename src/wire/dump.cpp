#include "wire/dump.hpp"

#include <utility>

#include "base/utf8.hpp"
#include "wire/big_endian.hpp"
#include "wire/decoder.hpp"
#include "wire/encoder.hpp"
#include "wire/limits.hpp"

namespace execnet::wire {

namespace {

class ValueSource {
 public:
  using Item = const Value*;

  explicit ValueSource(ChannelTable* channels) : channels_(channels) {}

  void visit(const Value* item, Encoder<ValueSource>& encoder) {
    using Type = Value::Type;
    switch (item->type()) {
      case Type::kNone: encoder.none(); break;
      case Type::kBool: encoder.boolean(*item->get_if<bool>()); break;
      case Type::kInt: encoder.integer(*item->get_if<std::int64_t>()); break;
      case Type::kBigInt: encoder.decimal(item->get_if<BigInt>()->decimal()); break;
      case Type::kFloat: encoder.real(*item->get_if<double>()); break;
      case Type::kComplex: encoder.complex(item->get_if<Complex>()->real, item->get_if<Complex>()->imag); break;
      case Type::kBytes: encoder.bytes(item->get_if<Bytes>()->view()); break;
      case Type::kString:
        if (!base::is_utf8(*item->get_if<std::string>())) {
          encoder.refuse("can't serialize a std::string that is not UTF-8 (bytes travel as execnet::Bytes)");
        }
        encoder.string(*item->get_if<std::string>());
        break;
      case Type::kList: encoder.list(item->get_if<List>()->size(), At{*item->get_if<List>()}); break;
      case Type::kTuple: encoder.tuple(item->get_if<Tuple>()->size(), At{*item->get_if<Tuple>()}); break;
      case Type::kSet: set(Op::kSet, *item->get_if<Set>(), encoder); break;
      case Type::kFrozenSet: set(Op::kFrozenSet, *item->get_if<FrozenSet>(), encoder); break;
      case Type::kDict:
        encoder.dict([&](auto&& visit_pair) {
          for (const auto& [key, value] : *item->get_if<Dict>()) {
            visit_pair(&key, &value);
          }
        });
        break;
      case Type::kChannel: channel(*item->get_if<ChannelRef>(), encoder); break;
    }
  }

  static std::string repr(const Value* item) { return to_string(*item); }

 private:
  struct At {
    const std::vector<Value>& items;
    const Value* operator()(std::size_t i) const { return &items[i]; }
  };

  static void set(Op op, const std::vector<Value>& members, Encoder<ValueSource>& encoder) {
    encoder.set(op, members.size(), [&](auto&& visit_member) {
      for (const Value& member : members) {
        visit_member(&member);
      }
    });
  }

  void channel(const ChannelRef& channel, Encoder<ValueSource>& encoder) {
    if (channels_ == nullptr) {
      encoder.refuse("can't serialize a channel outside of a connection");
    }
    if (channel == nullptr) {
      encoder.refuse("can't serialize a null channel");
    }
    std::uint32_t id = 0;
    try {
      id = channels_->id_of(channel);
    } catch (const DumpError& error) {  // says why, but not where
      encoder.refuse(error.what());
    }
    encoder.channel(id);
  }

  ChannelTable* channels_;
};

std::string latin1_to_utf8(std::string_view bytes) {
  std::string utf8;
  utf8.reserve(bytes.size());
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      utf8.push_back(c);
    } else {
      utf8.push_back(static_cast<char>(0xC0 | (byte >> 6)));
      utf8.push_back(static_cast<char>(0x80 | (byte & 0x3F)));
    }
  }
  return utf8;
}

class ValueBuilder {
 public:
  using Item = Value;

  explicit ValueBuilder(ChannelTable* channels) : channels_(channels) {}

  static Value none() { return {}; }
  static Value boolean(bool value) { return value; }
  static Value integer(std::int32_t value) { return value; }
  static Value decimal(std::string_view digits) { return BigInt(digits); }
  static Value real(double value) { return value; }
  static Value complex(double real, double imag) { return Complex{real, imag}; }
  static Value bytes(std::string_view bytes) { return Bytes(std::string(bytes)); }
  static Value latin1(std::string_view bytes) { return latin1_to_utf8(bytes); }
  static Value string(std::string_view utf8) {
    if (!base::is_utf8(utf8)) {
      throw Malformed{"a string that is not UTF-8"};
    }
    return std::string(utf8);
  }
  Value channel(std::uint32_t id) {
    if (channels_ == nullptr) {
      throw Malformed{"a channel outside of a connection"};
    }
    return channels_->channel(id);
  }

  static Value list(std::size_t size) {
    List list;
    list.reserve(size);
    return list;
  }
  static Value dict() { return Dict(); }
  template <typename Next>
  static Value tuple(std::size_t size, Next&& next) {
    return run<Tuple>(size, next);
  }
  template <typename Next>
  static Value set(std::size_t size, Next&& next) {
    return run<Set>(size, next);
  }
  template <typename Next>
  static Value frozen_set(std::size_t size, Next&& next) {
    return run<FrozenSet>(size, next);
  }
  static void set_item(Value& list, std::size_t index, Value value) {
    auto& items = *list.get_if<List>();
    if (index < items.size()) {
      items[index] = std::move(value);
    } else {
      items.resize(index);
      items.push_back(std::move(value));
    }
  }
  static void fill_up(Value& list, std::size_t size) { list.get_if<List>()->resize(size); }
  static void set_item(Value& dict, Value key, Value value) {
    dict.get_if<Dict>()->emplace_back(std::move(key), std::move(value));
  }

 private:
  template <typename Items, typename Next>
  static Value run(std::size_t size, Next&& next) {
    Items items;
    items.reserve(size);
    for (std::size_t i = 0; i < size; ++i) {
      items.push_back(next());
    }
    return items;
  }

  ChannelTable* channels_;
};

}  // namespace

void encode(const Value& value, base::Buffer& out, ChannelTable* channels) {
  ValueSource source(channels);
  Encoder<ValueSource>(source, out).encode(&value);
}

void encode_bytes(std::string_view bytes, std::shared_ptr<const void> owner, base::Rope& out) {
  put_length(out.own(), Op::kBytes, Op::kBytes8, bytes.size());
  if (bytes.size() >= base::Rope::kWorthLending) {
    out.lend(bytes, std::move(owner));
  } else {
    out.own().append(bytes);
  }
  out.own().push_back(static_cast<char>(Op::kStop));
}

std::optional<std::string_view> bytes_in(std::string_view encoded) {
  constexpr std::size_t kShort = 1 + sizeof(std::uint32_t);
  constexpr std::size_t kWide = 1 + sizeof(std::uint64_t);
  const auto op = encoded.empty() ? Op::kStop : static_cast<Op>(encoded.front());
  std::string_view rest;
  std::uint64_t size = 0;
  if (op == Op::kBytes && encoded.size() > kShort) {
    size = get_big_endian<std::uint32_t>(encoded.data() + 1);
    rest = encoded.substr(kShort);
  } else if (op == Op::kBytes8 && encoded.size() > kWide) {
    size = get_big_endian<std::uint64_t>(encoded.data() + 1);
    rest = encoded.substr(kWide);
  }
  if (rest.empty() || size != rest.size() - 1 || static_cast<Op>(rest.back()) != Op::kStop) {
    return std::nullopt;
  }
  rest.remove_suffix(1);
  return rest;
}

Value decode(std::string_view bytes, ChannelTable* channels, StringConfig strings) {
  ValueBuilder builder(channels);
  Decoder<ValueBuilder> decoder(builder, bytes, strings);
  Value value = decoder.decode();
  check_end(bytes, decoder.end());
  return value;
}

}  // namespace execnet::wire

namespace execnet {

std::string dumps(const Value& value) {
  base::Buffer out;
  out.push_back(wire::kDumpVersion);
  wire::encode(value, out, nullptr);
  return std::string(out.view());
}

Value loads(std::string_view bytes, StringConfig strings, LoadLimits limits) {
  Loaded loaded = load_first(bytes, strings, limits);
  wire::check_end(bytes, loaded.size);
  return std::move(loaded.value);
}

Loaded load_first(std::string_view bytes, StringConfig strings, LoadLimits limits) {
  const std::size_t start = wire::check_version(bytes);
  wire::check_limits(bytes, start, limits);
  wire::ValueBuilder builder(nullptr);
  wire::Decoder<wire::ValueBuilder> decoder(builder, bytes, strings, start);
  Value value = decoder.decode();
  return {std::move(value), decoder.end()};
}

}  // namespace execnet
