// A gateway: a Python interpreter somewhere, with a connection to it.
//
// A handle: copies are the same gateway. Its Group owns the interpreter; a handle that outlives it stays valid, and
// its calls throw GatewayGone. Any thread may call any method.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <execnet/channel.hpp>
#include <execnet/export.hpp>
#include <execnet/remote_info.hpp>
#include <execnet/source.hpp>
#include <execnet/value.hpp>
#include <execnet/xspec.hpp>

namespace execnet {

namespace core {
class GatewayEnd;
}

// Takes what the worker of a gateway prints: whatever its code and the programs that this starts write to standard
// output, in order, as bytes that mostly are UTF-8. Each call has one or more whole lines; the last, or one of more
// than 64 KiB, may lack its end. It runs on the thread of the gateway's callbacks (Channel::setcallback), and between
// the two there is no order. At most 64 KiB wait for it; then who prints waits. What was printed before the worker's
// end is given to it before Group::terminate returns, if it does not take too long. If it throws a std::exception, that
// is told on standard error, and it is not called again.
using Output = std::function<void(std::string_view text)>;

class EXECNET_EXPORT Gateway {
 public:
  // Made by Group::makegateway.
  explicit Gateway(std::shared_ptr<core::GatewayEnd> end);

  friend bool operator==(const Gateway&, const Gateway&) = default;

  [[nodiscard]] const std::string& id() const;
  [[nodiscard]] const XSpec& spec() const;

  // Runs source on the other side, with the other end of the returned channel in its globals.
  // Keyword arguments go to the function the source names.
  //   auto channel = gateway.remote_exec("channel.send(channel.receive() + 1)");
  // Throws DumpError for the arguments, GatewayGone. Errors of the code itself arrive on the channel.
  Channel remote_exec(const Source& source, const Dict& arguments = {}) const;  // NOLINT(modernize-use-nodiscard)
  // A channel without code at its other end, to be sent over another channel.
  [[nodiscard]] Channel newchannel() const;

  // From the worker's HELLO: this costs no round trip and works while the worker is busy.
  [[nodiscard]] const RemoteInfo& rinfo() const;
  // The process of the worker, by its number on its host; in its own PID namespace, with isolate=pidns.
  [[nodiscard]] std::int64_t pid() const { return rinfo().pid; }
  // How that process has ended: its exit status, or the negative number of the signal that has ended it. Of ssh= it is
  // the status of ssh. None while it runs; of a socket= always, as only the end of the connection is known then.
  // Does not wait: it is known after join(), and when GatewayGone was thrown, unless the machine is very busy.
  //   if (gateway.returncode() == -SIGKILL) ...
  [[nodiscard]] std::optional<int> returncode() const;
  // Asks the worker: {"numchannels": int, "numexecuting": int, "execmodel": str, and for its channels with a
  // window "numblocked": int, the blocked sends, "outstanding": int, bytes sent and not received here}.
  Dict remote_status(std::optional<Seconds> timeout = std::nullopt) const;  // NOLINT(modernize-use-nodiscard)
  // Whether the other side is there.
  [[nodiscard]] bool hasreceiver() const;
  // The number of channels that are open.
  [[nodiscard]] std::size_t numchannels() const;

  // How strings of Python 2 and 3 are loaded, at both ends, on channels that do not say otherwise.
  void reconfigure(StringConfig strings) const;

  // Tells the worker to end; does not wait for it. May be repeated.
  void exit() const;
  // Waits for the end of the connection, that is until the other side is gone.
  // Throws TimeoutError.
  void join(std::optional<Seconds> timeout = std::nullopt) const;

  // "<PopenGateway id='gw0' receive-live, 0 active channels>"
  [[nodiscard]] std::string repr() const;

  [[nodiscard]] const std::shared_ptr<core::GatewayEnd>& end() const { return end_; }

 private:
  std::shared_ptr<core::GatewayEnd> end_;
};

}  // namespace execnet
