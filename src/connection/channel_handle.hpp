// The program's end of a channel. When the last reference goes, the channel closes.
//
// Owner: whoever holds it (execnet::Channel, the Python Channel object). Any thread may call any
// method. Any thread may drop the handle, even a garbage collector's, because that never waits.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>

#include "base/buffer.hpp"
#include "base/wait.hpp"
#include "connection/channel_state.hpp"
#include "connection/connection.hpp"

namespace execnet::core {

class ChannelHandle {
 public:
  ChannelHandle(std::shared_ptr<Connection> connection, std::shared_ptr<ChannelState> state)
      : connection_(std::move(connection)), state_(std::move(state)) {}
  ~ChannelHandle();
  ChannelHandle(const ChannelHandle&) = delete;
  ChannelHandle& operator=(const ChannelHandle&) = delete;

  [[nodiscard]] std::uint32_t id() const { return state_->id; }
  [[nodiscard]] Connection& connection() const { return *connection_; }

  // Whether there is a callback that has not been told of the end. Such a program learns from the callback that the
  // other side is gone; pytest-xdist, for example, expects no exception from a send before that.
  [[nodiscard]] bool is_to_be_told() const { return state_->to_be_told; }
  // `payload` is an encoded value. Waits while the window or the stream is full. Throws ChannelClosed; TimeoutError,
  // only if nothing was sent; GatewayGone. Instead of GatewayGone, the item is lost like those on their way if
  // `to_be_told`: the program's callback had not been told of the end when the program called.
  void send(base::Rope payload, const base::Wait& wait, bool to_be_told = false);
  // The same, but never waits, not even for the window. What the operating system does not take at once is kept and
  // written later, so the caller must bound it. False if nothing can be sent any more.
  bool post(base::Buffer payload);
  // The next encoded value. Throws TimeoutError, RemoteError, EndOfChannel, GatewayGone.
  base::Buffer receive(const base::Wait& wait);
  // The same if an item is there already, else none. Never waits.
  std::optional<base::Buffer> try_receive();
  // Whether no more items will arrive.
  [[nodiscard]] bool no_more_items() const;
  // From now on the items go to the callback, beginning with those that have arrived; the end comes last.
  // Throws StateError if there is a callback already. Returns what Dispatcher::start() returns.
  bool set_callback(std::shared_ptr<Callback> callback, bool in_greenlet = false);
  // The error that the other side closed with, or the cause of the gateway's end; none if there is
  // neither. Each error is returned once.
  [[nodiscard]] std::exception_ptr take_error();
  // The window of both directions (kUnbounded for none, see flow.hpp) and the bytes on their way to the other program.
  struct Flowing {
    std::uint64_t window;
    std::uint64_t outstanding;
  };
  [[nodiscard]] Flowing flow() const;
  // Sets the window at both ends. REQUIRES: it is not 0. Throws ChannelClosed, GatewayGone. Never waits.
  void set_window(std::uint64_t window);
  // How the strings in items that receive() returns are to be loaded.
  [[nodiscard]] StringConfig strings() const;
  // Sets that, at both ends. Throws ChannelClosed, GatewayGone.
  void reconfigure(StringConfig strings, const base::Wait& wait);

  // Throws StateError if code on this worker still runs with the channel.
  void close(const std::optional<std::string>& error);
  [[nodiscard]] bool isclosed() const;
  // Throws TimeoutError, RemoteError, GatewayGone.
  void waitclose(const base::Wait& wait);

  // On a worker: brackets the execution of code that has this channel.
  void set_executing(bool executing);

  // "<Channel id=1 open>"
  [[nodiscard]] std::string repr() const;

 private:
  // Throws unless something can be sent.
  void check_open(Connection::Lock& lock);
  // Returns when an item of so many bytes may be sent.
  void wait_for_room(Connection::Lock& lock, std::size_t bytes, const base::Wait& wait);
  // The first of the items that have arrived.
  base::Buffer take_item(Connection::Lock& lock);
  [[noreturn]] void throw_end(Connection::Lock& lock);

  const std::shared_ptr<Connection> connection_;
  const std::shared_ptr<ChannelState> state_;
};

}  // namespace execnet::core
