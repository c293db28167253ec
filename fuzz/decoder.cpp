// Bytes as a dumped value: a LoadError within the bytes, or a value that survives another round.
#include <execnet/dump.hpp>
#include <memory>
#include <optional>
#include <unordered_map>

#include "target.hpp"
#include "wire/dump.hpp"

namespace execnet::fuzz {
namespace {

// Knows channels by their ids alone: this layer only passes references through.
class Channels final : public wire::ChannelTable {
 public:
  std::uint32_t id_of(const ChannelRef& channel) override { return ids_.at(channel.get()); }
  ChannelRef channel(std::uint32_t id) override {
    auto& known = channels_[id];
    if (known == nullptr) {
      const auto owner = std::make_shared<char>();
      known = {owner, reinterpret_cast<core::ChannelHandle*>(owner.get())};
      ids_[known.get()] = id;
    }
    return known;
  }

 private:
  std::unordered_map<std::uint32_t, ChannelRef> channels_;
  std::unordered_map<const core::ChannelHandle*, std::uint32_t> ids_;
};

template <typename Decode>
std::optional<Value> value_of(std::string_view bytes, Decode decode) {
  try {
    return decode(bytes);
  } catch (const LoadError& error) {
    require(error.offset() <= bytes.size(), "the offset of an error lies within the input");
    return std::nullopt;
  }
}

void check_dump(std::string_view bytes, StringConfig strings) {
  const auto value = value_of(bytes, [&](std::string_view all) { return loads(all, strings); });
  const auto first = value_of(bytes, [&](std::string_view all) {
    Loaded loaded = load_first(all, strings);
    require(loaded.size <= all.size(), "a value takes no more than there is");
    return std::move(loaded.value);
  });
  if (value) {
    require(first == value, "the only value is the first value");
    require(loads(dumps(*value)) == *value, "a loaded value can be dumped and is then the same");
    require(!to_string(*value).empty(), "a value has a text");
  }
}

void check_payload(std::string_view bytes) {
  Channels channels;
  const auto decode = [&](std::string_view all) { return wire::decode(all, &channels, {}); };
  if (const auto value = value_of(bytes, decode)) {
    base::Buffer again;
    wire::encode(*value, again, &channels);
    require(decode(again.view()) == *value, "a decoded payload can be encoded and is then the same");
  }
}

}  // namespace
}  // namespace execnet::fuzz

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace execnet::fuzz;
  const std::string_view bytes = text_of(data, size);
  check_dump(bytes, {.py2str_as_py3str = true, .py3str_as_py2str = false});
  check_dump(bytes, {.py2str_as_py3str = false, .py3str_as_py2str = true});
  check_payload(bytes.substr(bytes.empty() ? 0 : 1));
  return 0;
}
