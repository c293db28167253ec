// One end of a channel: a two-way stream of values between a gateway's two sides.
//
// A Channel is a handle: copies are the same channel. When the last handle goes, the channel closes.
// Any thread may call any method; one item goes to one receiver.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include <execnet/dump.hpp>
#include <execnet/error.hpp>
#include <execnet/export.hpp>
#include <execnet/value.hpp>

namespace execnet {

// A duration for time-outs: `1s`, `200ms`, or Seconds(0.5).
using Seconds = std::chrono::duration<double>;

// Bytes and their owner. They are sent and received without being copied.
struct SharedBytes {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;  // while it lives, the bytes stay where they are and do not change
};

class EXECNET_EXPORT Channel {
 public:
  // Made by Gateway::remote_exec and Gateway::newchannel. REQUIRES: ref is not null.
  explicit Channel(ChannelRef ref) : ref_(std::move(ref)) {}

  // The number both ends know the channel by.
  [[nodiscard]] std::uint32_t id() const;

  // Hands an item to the operating system. Waits while the other side's buffers, or the channel's window, are
  // full, at most `timeout`. Throws DumpError or TimeoutError (nothing was sent), ChannelClosed, GatewayGone. If there
  // is a callback, GatewayGone is thrown only after the callback was told of the end; items sent before that are lost.
  //   channel.send(frame, 2s);
  void send(const Value& item, std::optional<Seconds> timeout = std::nullopt) const;

  // The next item the other side sent. Waits for it, at most `timeout`.
  // Throws TimeoutError; RemoteError when the other side raised; EndOfChannel after that, or when the other side has
  // closed the channel; GatewayGone when it is gone. Items that had arrived come first. StateError if there is a
  // callback.
  [[nodiscard]] Value receive(std::optional<Seconds> timeout = std::nullopt) const;
  //   int answer = channel.receive<int>();
  template <typename T>
  [[nodiscard]] T receive(std::optional<Seconds> timeout = std::nullopt) const {
    return receive(timeout).as<T>();
  }

  // The same for items that are nothing but bytes. From 64 KiB on they are written from where they are. The owner is
  // released on any thread when they are written, which may be after a TimeoutError or GatewayGone.
  //   auto frame = std::make_shared<std::vector<float>>(1 << 24);
  //   channel.send_bytes({std::as_bytes(std::span(*frame)), frame});
  void send_bytes(const SharedBytes& item, std::optional<Seconds> timeout = std::nullopt) const;
  // The bytes of the next item, in the memory they were received in. Throws what receive() throws, and DataFormatError
  // when the item is something else; that item is lost.
  //   const execnet::SharedBytes frame = channel.receive_bytes();
  [[nodiscard]] SharedBytes receive_bytes(std::optional<Seconds> timeout = std::nullopt) const;

  // The next item, or none at the end of the channel.
  [[nodiscard]] std::optional<Value> next() const;

  // Closes both directions; with an error text the other side gets a RemoteError. May be repeated.
  void close(const std::optional<std::string>& error = std::nullopt) const;
  // Whether this end can no longer send.
  [[nodiscard]] bool isclosed() const;
  // Waits until the other side has closed. Throws RemoteError, TimeoutError, GatewayGone.
  void waitclose(std::optional<Seconds> timeout = std::nullopt) const;

  // From now on `item` is called with each item, on a thread of the gateway, one at a time and in order, beginning
  // with those that have already arrived. `end` is called once, after the last. A callback may block, and use
  // any gateway. If `item` throws, the channel is closed with that error. `end` must not throw.
  // Throws StateError if there is a callback already.
  //   channel.setcallback([](const Value& event) { log(event); });
  void setcallback(std::function<void(const Value&)> item, std::function<void()> end = {}) const;

  // Sets the window of the channel, at both ends: how many bytes of items, at least 1, may be on their way in
  // each direction, sent by one side and not yet received by the code at the other. When it is full, send() waits. An
  // item that is larger than the window is sent when next to nothing is on its way. None lifts the window. When both
  // ends set one, the smaller holds. The default is the window= of the specification.
  // Throws SpecError for 0, ChannelClosed, GatewayGone.
  //   channel.set_window(8 << 20);
  void set_window(std::optional<std::uint64_t> bytes) const;
  // The window of each direction, in bytes; none if there is none.
  [[nodiscard]] std::optional<std::uint64_t> window() const;
  // Bytes of items sent here and not yet received by the code at the other side. None without a window, because then
  // the other side does not report them.
  [[nodiscard]] std::optional<std::uint64_t> outstanding() const;

  // What ended the channel: RemoteError or GatewayGone, once; null if neither did.
  [[nodiscard]] std::exception_ptr take_error() const;

  // How strings of Python 2 and 3 are loaded on this channel, at both ends. Throws ChannelClosed, GatewayGone.
  void reconfigure(StringConfig strings) const;

  [[nodiscard]] const ChannelRef& ref() const { return ref_; }
  friend bool operator==(const Channel& a, const Channel& b) { return a.ref_ == b.ref_; }

  // for (const Value& item : channel) ...   ends with the channel; throws RemoteError.
  class iterator;  // NOLINT(readability-identifier-naming): as containers have it
  [[nodiscard]] iterator begin() const;
  [[nodiscard]] std::default_sentinel_t end() const { return {}; }

 private:
  ChannelRef ref_;
};

class Channel::iterator {  // NOLINT(readability-identifier-naming)
 public:
  using iterator_concept = std::input_iterator_tag;
  using difference_type = std::ptrdiff_t;
  using value_type = Value;

  explicit iterator(const Channel& channel) : channel_(channel), item_(channel_.next()) {}
  const Value& operator*() const { return *item_; }
  const Value* operator->() const { return &*item_; }
  iterator& operator++() {
    item_ = channel_.next();
    return *this;
  }
  void operator++(int) { ++*this; }
  friend bool operator==(const iterator& at, std::default_sentinel_t /*end*/) { return !at.item_; }

 private:
  Channel channel_;
  std::optional<Value> item_;
};

inline Channel::iterator Channel::begin() const { return iterator(*this); }

// Channels travel in values.
template <>
struct Convert<Channel> {
  static Value to(const Channel& channel) { return Value(channel.ref()); }
  static Channel from(const Value& value) { return Channel(value.as<ChannelRef>()); }
};

}  // namespace execnet
