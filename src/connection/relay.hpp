// Joins a byte stream of this process to a channel: bytes from the one go into the other.
// Both ends of a `via=` gateway are a Relay. At the coordinator the stream is the new gateway's, at the
// proxy it is that of the process started for it. docs/wire_format.md has the items, under "Proxies".
//
// Owner: its RelayOwner. Guarded by the mutex of the channel's connection. The loop thread reads the stream. Whichever
// thread reads the connection writes it, or the loop does: no thread ever waits for it, and none needs an interpreter.
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

  // The answer of one of has_spoken(), stream_ended(), channel_ended() or flushed() has changed. Called with the mutex
  // held, on any thread. Must not close the channel in the call.
  virtual void on_relay_change(Connection::Lock& lock) = 0;
};

class Relay : public std::enable_shared_from_this<Relay> {
 public:
  // How many bytes may be on their way in one direction: sent, and not yet written to the stream at the other
  // end. It is enough for what a network has under way, and bounds what one slow reader may cost.
  static constexpr std::size_t kWindow = std::size_t{1} << 20;

  Relay(std::shared_ptr<Connection> connection, std::shared_ptr<ChannelState> channel, std::weak_ptr<RelayOwner> owner);
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;

  // From now on the channel's items come to this object. It keeps them until there is a stream.
  void take_channel(Connection::Lock& lock);
  void take_stream(Connection::Lock& lock, base::Fd stream);
  // Ends the stream, for both sides. Bytes that are already in it are still relayed.
  void shut_down(Connection::Lock& lock);

  // Whether anything has come out of the stream.
  [[nodiscard]] bool has_spoken(const Connection::Lock& lock) const;
  // Whether nothing more comes out of the stream; what came is on its way over the channel.
  [[nodiscard]] bool stream_ended(const Connection::Lock& lock) const;
  // Whether nothing more comes over the channel. From then on, bytes from the stream are dropped.
  [[nodiscard]] bool channel_ended(const Connection::Lock& lock) const;
  // The same, and everything that came is written to the stream, which is shut down.
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
