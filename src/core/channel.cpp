#include <execnet/channel.hpp>

#include "base/wait.hpp"
#include "core/channel_handle.hpp"
#include "core/value_message.hpp"

namespace execnet {

std::uint32_t Channel::id() const { return ref_->id(); }

void Channel::send(const Value& item) const { ref_->send(core::encode_value(item, &ref_->connection()), {}); }

Value Channel::receive(std::optional<Seconds> timeout) const {
  const base::Buffer item = ref_->receive({.deadline = base::deadline_after(timeout)});
  return core::decode_value(item.view(), &ref_->connection(), ref_->strings());
}

std::optional<Value> Channel::next() const {
  try {
    return receive();
  } catch (const EndOfChannel&) {
    return std::nullopt;
  }
}

void Channel::close(const std::optional<std::string>& error) const { ref_->close(error); }

bool Channel::isclosed() const { return ref_->isclosed(); }

void Channel::waitclose(std::optional<Seconds> timeout) const {
  ref_->waitclose({.deadline = base::deadline_after(timeout)});
}

}  // namespace execnet
