// Joins a byte stream of this process with a channel: what comes out of the one goes into the other.
// Both ends of a `via=` gateway are one: at the coordinator the stream is the new gateway's, at the
// proxy it is that of the process started for it. docs/wire_format.md has the items, under "OPEN".
//
// Owner: its RelayOwner. Guarded by the mutex of the channel's connection. The stream is read on the
// loop thread, and written by whoever reads the connection, or the loop: never by a thread that
// would have to wait, and none that needs an interpreter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/buffer.hpp"
#include "base/fd.hpp"
#include "connection/channel_state.hpp"
#include "connection/connection.hpp"
#include "loop/loop.hpp"

namespace execnet::core {

class RelayOwner {
 public:
  virtual ~RelayOwner() = default;

  // What the relay's first four questions ask about has changed. Called with the mutex held, on
  // whichever thread; must not close the channel there and then.
  virtual void on_relay_change(Connection::Lock& lock) = 0;
};

class Relay : public std::enable_shared_from_this<Relay> {
 public:
  // The bytes that may be on their way in one direction: sent, and not yet written to the stream
  // there. Enough for what a network has under way, and what one slow reader may cost.
  static constexpr std::size_t kWindow = std::size_t{1} << 20;

  Relay(std::shared_ptr<Connection> connection, std::shared_ptr<ChannelState> channel, std::weak_ptr<RelayOwner> owner);
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  // From now on the channel's items are this object's. They are kept until there is a stream.
  void take_channel(Connection::Lock& lock);
  void take_stream(Connection::Lock& lock, base::Fd stream);
  // Makes the stream end, for both sides; what lies in it is still relayed.
  void shut_down(Connection::Lock& lock);

  // Whether anything has come out of the stream.
  [[nodiscard]] bool has_spoken(const Connection::Lock& lock) const;
  // Whether nothing more comes out of the stream; what came is on its way over the channel.
  [[nodiscard]] bool stream_ended(const Connection::Lock& lock) const;
  // Whether nothing more comes over the channel. What the stream says is dropped from then on.
  [[nodiscard]] bool channel_ended(const Connection::Lock& lock) const;
  // The same, and all that came is in the stream, which is shut down.
  [[nodiscard]] bool flushed(const Connection::Lock& lock) const;
  // The error text that the other end closed the channel with; empty if there is none.
  [[nodiscard]] std::string error(const Connection::Lock& lock) const;

  // For Connection. `payload` is an encoded value. Throws ProtocolError.
  void on_item(Connection::Lock& lock, base::Buffer payload);
  void on_end(Connection::Lock& lock);

 private:
  void on_ready(std::uint32_t ready);
  void read_stream(Connection::Lock& lock);
  void write_stream(Connection::Lock& lock);
  void end_writing(Connection::Lock& lock);
  void tell_owner(Connection::Lock& lock);
  void acknowledge(Connection::Lock& lock, std::size_t count);
  void update_interest(Connection::Lock& lock);

  const std::shared_ptr<Connection> connection_;
  const std::shared_ptr<ChannelState> channel_;
  const std::weak_ptr<RelayOwner> owner_;
  base::Fd stream_;
  loop::Loop::Id watch_ = 0;
  std::vector<char> scratch_;  // of the loop thread

  // Stream to channel.
  bool spoken_ = false;
  bool read_ended_ = false;
  std::size_t on_the_way_ = 0;  // bytes sent and not acknowledged

  // Channel to stream.
  bool channel_ended_ = false;        // nothing will be added to pending_
  bool write_ended_ = false;          // nothing will be written any more
  std::deque<base::Buffer> pending_;  // items of bytes, as they came
  std::size_t pending_bytes_ = 0;     // not yet written
  std::size_t offset_ = 0;            // bytes of pending_.front() already written
  std::size_t consumed_ = 0;          // written and not yet acknowledged
};

}  // namespace execnet::core
