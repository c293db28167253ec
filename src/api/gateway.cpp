#include <execnet/gateway.hpp>

#include "base/wait.hpp"
#include "connection/value_message.hpp"
#include "gateway/gateway_end.hpp"

namespace execnet {

Gateway::Gateway(std::shared_ptr<core::GatewayEnd> end) : end_(std::move(end)) {}

const std::string& Gateway::id() const { return end_->id(); }

const XSpec& Gateway::spec() const { return end_->spec(); }

Channel Gateway::remote_exec(const Source& source, const Dict& arguments) const {
  const Tuple task{source.text, source.filename, source.first_line, source.function, arguments};
  return Channel(end_->exec(core::encode_value(Value(task), end_->connection().get()), {}));
}

Channel Gateway::newchannel() const { return Channel(end_->newchannel()); }

const RemoteInfo& Gateway::rinfo() const { return end_->info(); }

std::optional<int> Gateway::returncode() const { return end_->returncode(); }

Dict Gateway::remote_status(std::optional<Seconds> timeout) const {
  return end_->remote_status({.deadline = base::deadline_after(timeout)});
}

bool Gateway::hasreceiver() const { return end_->hasreceiver(); }

std::size_t Gateway::numchannels() const {
  if (end_->connection()->in_forked_copy()) {
    return 0;
  }
  auto lock = end_->connection()->lock();
  return end_->connection()->open_channels(lock);
}

void Gateway::reconfigure(StringConfig strings) const { end_->reconfigure(strings); }

void Gateway::exit() const { end_->exit(); }

void Gateway::join(std::optional<Seconds> timeout) const { end_->join({.deadline = base::deadline_after(timeout)}); }

std::string Gateway::repr() const {
  return "<" + end_->kind() + "Gateway id='" + id() + "' " + (hasreceiver() ? "receive-live" : "not-receiving") + ", " +
         std::to_string(numchannels()) + " active channels>";
}

}  // namespace execnet
