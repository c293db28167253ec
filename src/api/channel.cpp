#include <execnet/channel.hpp>

#include <exception>
#include <utility>

#include "base/wait.hpp"
#include "connection/channel_handle.hpp"
#include "connection/value_message.hpp"
#include "wire/dump.hpp"

namespace execnet {
namespace {

class FunctionCallback final : public core::Callback {
 public:
  FunctionCallback(core::Connection& connection, std::function<void(const Value&)> item, std::function<void()> end)
      : connection_(connection), item_(std::move(item)), end_(std::move(end)) {}

  std::optional<std::string> on_item(base::Buffer payload, StringConfig strings) override {
    try {
      item_(core::decode_value(payload.view(), &connection_, strings));
      return std::nullopt;
    } catch (const std::exception& error) {
      return std::string("a callback failed: ") + error.what();
    }
  }

  void on_end() override {
    if (end_) {
      end_();
    }
  }

 private:
  core::Connection& connection_;  // outlives the dispatcher thread, which it owns
  std::function<void(const Value&)> item_;
  std::function<void()> end_;
};

}  // namespace

std::uint32_t Channel::id() const { return ref_->id(); }

void Channel::send(const Value& item, std::optional<Seconds> timeout) const {
  const bool to_be_told = ref_->is_to_be_told();
  ref_->send(core::encode_value(item, &ref_->connection()), {.deadline = base::deadline_after(timeout)}, to_be_told);
}

Value Channel::receive(std::optional<Seconds> timeout) const {
  const base::Buffer item = ref_->receive({.deadline = base::deadline_after(timeout)});
  return core::decode_value(item.view(), &ref_->connection(), ref_->strings());
}

void Channel::send_bytes(const SharedBytes& item, std::optional<Seconds> timeout) const {
  const bool to_be_told = ref_->is_to_be_told();
  base::Rope payload;
  wire::encode_bytes({reinterpret_cast<const char*>(item.bytes.data()), item.bytes.size()}, item.owner, payload);
  ref_->send(std::move(payload), {.deadline = base::deadline_after(timeout)}, to_be_told);
}

SharedBytes Channel::receive_bytes(std::optional<Seconds> timeout) const {
  auto item = std::make_shared<const base::Buffer>(ref_->receive({.deadline = base::deadline_after(timeout)}));
  const auto bytes = wire::bytes_in(item->view());
  if (!bytes) {
    detail::throw_unexpected("bytes", core::decode_value(item->view(), &ref_->connection(), ref_->strings()));
  }
  return {std::as_bytes(std::span(*bytes)), std::move(item)};
}

std::optional<Value> Channel::next() const {
  try {
    return receive();
  } catch (const EndOfChannel&) {
    return std::nullopt;
  }
}

void Channel::close(const std::optional<std::string>& error) const { ref_->close(error); }

void Channel::setcallback(std::function<void(const Value&)> item, std::function<void()> end) const {
  ref_->set_callback(std::make_shared<FunctionCallback>(ref_->connection(), std::move(item), std::move(end)));
}

bool Channel::isclosed() const { return ref_->isclosed(); }

void Channel::waitclose(std::optional<Seconds> timeout) const {
  ref_->waitclose({.deadline = base::deadline_after(timeout)});
}

void Channel::set_window(std::optional<std::uint64_t> bytes) const {
  if (bytes == 0) {
    throw SpecError("a window of 0 bytes would let nothing pass; std::nullopt means no window");
  }
  ref_->set_window(bytes.value_or(core::kUnbounded));
}

std::optional<std::uint64_t> Channel::window() const {
  const std::uint64_t window = ref_->flow().window;
  return window == core::kUnbounded ? std::nullopt : std::optional(window);
}

std::optional<std::uint64_t> Channel::outstanding() const {
  const auto [window, outstanding] = ref_->flow();
  return window == core::kUnbounded ? std::nullopt : std::optional(outstanding);
}

std::exception_ptr Channel::take_error() const { return ref_->take_error(); }

void Channel::reconfigure(StringConfig strings) const { ref_->reconfigure(strings, {}); }

}  // namespace execnet
