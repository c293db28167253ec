#include "connection/value_message.hpp"

#include <execnet/error.hpp>

#include "connection/channel_handle.hpp"
#include "wire/dump.hpp"

namespace execnet::core {
namespace {

class ConnectionChannels final : public wire::ChannelTable {
 public:
  explicit ConnectionChannels(Connection& connection) : connection_(connection) {}

  std::uint32_t id_of(const ChannelRef& channel) override {
    if (&channel->connection() != &connection_) {
      throw DumpError("a channel can only be sent over its own gateway");
    }
    return channel->id();
  }

  ChannelRef channel(std::uint32_t id) override {
    auto lock = connection_.lock();
    return connection_.channel(lock, id);
  }

 private:
  Connection& connection_;
};

}  // namespace

base::Buffer encode_value(const Value& value, Connection* connection) {
  base::Buffer bytes;
  if (connection == nullptr) {
    wire::encode(value, bytes, nullptr);
  } else {
    ConnectionChannels channels(*connection);
    wire::encode(value, bytes, &channels);
  }
  return bytes;
}

Value decode_value(std::string_view bytes, Connection* connection, StringConfig strings) {
  if (connection == nullptr) {
    return wire::decode(bytes, nullptr, strings);
  }
  ConnectionChannels channels(*connection);
  return wire::decode(bytes, &channels, strings);
}

}  // namespace execnet::core
