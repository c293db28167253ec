// The program's end of a channel. When the last reference goes, the channel closes.
//
// Owner: whoever holds it (execnet::Channel, the Python Channel object). Any thread may call any
// method, and may drop it, without ever waiting: a garbage collector does.
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

  // Whether there is a callback that was not told the end. Such a program learns there that the other side is gone:
  // pytest-xdist, for one, expects no exception of a send before.
  [[nodiscard]] bool is_to_be_told() const { return state_->to_be_told; }
  // `payload` is an encoded value. Waits while the window or the stream is full. Throws ChannelClosed;
  // GatewayGone, but for who is to be told: then the item is lost like those on their way, and what counts is what the
  // program can have known when it called; TimeoutError only if nothing was sent.
  void send(base::Rope payload, const base::Wait& wait, bool to_be_told = false);
  // The same without ever waiting, also not for the window: what the operating system does not take at once is kept and
  // written later, so the caller sees to it that this is not much. False if nothing can be sent any more.
  bool post(base::Buffer payload);
  // The next encoded value. Throws TimeoutError, RemoteError, EndOfChannel, GatewayGone.
  base::Buffer receive(const base::Wait& wait);
  // The same if it is there already, else none. Never waits.
  std::optional<base::Buffer> try_receive();
  // Whether nothing will be added to what has arrived.
  [[nodiscard]] bool no_more_items() const;
  // From now on the items go to the callback, those that have arrived first; then the end.
  // Throws ChannelClosed if there is a callback already. For what it returns see Dispatcher::start().
  bool set_callback(std::shared_ptr<Callback> callback, bool in_greenlet = false);
  // The error the other side closed with, or the cause of the gateway's end; none if there is
  // neither. Each error is given once.
  [[nodiscard]] std::exception_ptr take_error();
  // The window of both directions, kUnbounded for none (flow.hpp), and bytes on their way to the other program.
  struct Flowing {
    std::uint64_t window;
    std::uint64_t outstanding;
  };
  [[nodiscard]] Flowing flow() const;
  // Sets the window at both ends. REQUIRES: it is not 0. Throws ChannelClosed, GatewayGone. Never waits.
  void set_window(std::uint64_t window);
  // How strings of what receive() gives are to be loaded.
  [[nodiscard]] StringConfig strings() const;
  // Sets that, at both ends. Throws ChannelClosed, GatewayGone.
  void reconfigure(StringConfig strings, const base::Wait& wait);

  // Throws ChannelClosed when code on this worker still runs with the channel.
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
