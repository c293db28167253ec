// One end of a gateway's byte stream: frames in and out, and the channels they belong to. The same class serves the
// coordinator and the native worker.
//
// It is the composition of these, each of which says its rules in its own header:
//
//   Link      the bytes: a socket, or a pair of rings with the socket as a doorbell
//   Roles     who reads and who writes at the moment, and what the loop watches for
//   Waits     who waits, and for what
//   Reading   who reads next; bytes to messages (FrameReader)
//   Writing   who writes next; messages to bytes (Outbox)
//   Channels  which channels there are
//
// and of the Dispatcher, which runs callbacks. What is left here is what a frame does, and the end.
//
// Owner: its GatewayEnd or WorkerEnd, and every ChannelHandle. Any thread may call any method.
//
// Lock order: this object's mutex before the loop's own. It is never held in a system call that can block, nor while
// code that is not ours runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/buffer.hpp"
#include "base/fd.hpp"
#include "base/fork.hpp"
#include "base/rope.hpp"
#include "base/thread_scope.hpp"
#include "base/wait.hpp"
#include "connection/channel_state.hpp"
#include "connection/channels.hpp"
#include "connection/dispatcher.hpp"
#include "connection/link.hpp"
#include "connection/reading.hpp"
#include "connection/roles.hpp"
#include "connection/trace.hpp"
#include "connection/waits.hpp"
#include "connection/writing.hpp"
#include "loop/loop.hpp"
#include "wire/frame.hpp"

namespace execnet::core {

// What the two kinds of owner do differently. All but on_stream_end are called with the connection's mutex held, on
// whichever thread reads: they note what came and return.
class ConnectionOwner {
 public:
  using Lock = core::Lock;

  virtual ~ConnectionOwner() = default;

  virtual void on_hello(Lock& lock, base::Buffer payload) = 0;
  virtual void on_exec(Lock& lock, const std::shared_ptr<ChannelState>& channel, base::Buffer payload) = 0;
  virtual void on_open(Lock& lock, const std::shared_ptr<ChannelState>& channel, base::Buffer payload) = 0;
  virtual void on_status_request(Lock& lock, std::uint32_t channel) = 0;
  virtual void on_terminate(Lock& lock) = 0;
  // Nothing more comes. `error` says why if it was not an orderly end. The owner calls finish(), now or later, when it
  // knows the cause.
  virtual void on_stream_end(const std::string& error) = 0;
};

class Connection final : public std::enable_shared_from_this<Connection>,
                         private Reading::Receiver,
                         private Writing::Sender {
 public:
  using Lock = core::Lock;
  using Flows = Channels::Flows;

  // The owner is told of frames from start() on, and stays alive until stop() has returned.
  Connection(base::Fd stream, std::shared_ptr<loop::Loop> loop, Side side);
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Unless told otherwise the loop reads then; else who waits first.
  void start(std::weak_ptr<ConnectionOwner> owner, bool loop_reads = true);

  // Throws GatewayGone in a process forked from the one that made this: the stream and the threads are the parent's.
  [[nodiscard]] Lock lock();
  [[nodiscard]] bool in_forked_copy() const { return made_here_.in_forked_copy(); }

  // Tells it of all that happens from now on. Once.
  void set_trace(Lock& lock, std::unique_ptr<const Trace> trace);

  // --- Writing (connection/writing.hpp) ---

  // Hands a message to the operating system; waits while it has no room. When the wait is abandoned the message was
  // sent whole or, for the receiver, not at all. Throws GatewayGone; TimeoutError only if it was not sent.
  void send(Lock& lock, wire::FrameType type, std::uint32_t channel, base::Rope&& payload, const base::Wait& wait);
  // Never waits: what the operating system does not take at once the loop writes.
  void post(Lock& lock, wire::FrameType type, std::uint32_t channel, base::Rope&& payload = {}) {
    writing_.post(lock, type, channel, std::move(payload));
  }
  // The same for bytes that are frames already, or come before the first frame.
  void post_raw(Lock& lock, base::Buffer bytes) { writing_.post_raw(lock, std::move(bytes)); }

  // --- Rings (connection/link.hpp) ---

  // A coordinator offers, a worker expects it. REQUIRES: start() was not called yet.
  void offer_rings() { link_.offer(); }
  void expect_rings() { link_.expect_offer(); }
  [[nodiscard]] bool has_rings() const { return link_.has_rings(); }
  // The other side has them, too. Nothing happens if there are none here.
  void agree_on_rings(Lock& lock);
  // Before the first message that is more than a question: what is agreed on is used from now on. Up to then it costs
  // the two sides of a gateway nothing.
  void use_rings(Lock& lock);

  // --- Compressing (connection/deflating.hpp) ---

  // The other side may compress what it sends. By whoever reads, or before start().
  void expect_deflated() { reading_.expect_deflated(); }
  // It can inflate what is sent from now on.
  void deflate(Lock& lock) {
    static_cast<void>(lock);
    writing_.deflate();
  }

  // --- Waiting (connection/reading.hpp, connection/waits.hpp) ---

  // Waits until `ready` (called with the lock held) says so; false if the deadline passed first. `topic` is what
  // touch() is called with when that may have changed.
  bool wait_until(Lock& lock, const void* topic, const base::Wait& wait, const std::function<bool()>& ready) {
    return reading_.wait_until(lock, topic, wait, ready);
  }
  // Wakes those that wait for `topic`.
  void touch(Lock& lock, const void* topic) {
    static_cast<void>(lock);
    waits_.touch(topic);
  }

  void touch_all(Lock& lock) {
    static_cast<void>(lock);
    waits_.touch_all();
  }

  // --- Channels (connection/channels.hpp) ---

  // A new channel of this side's making: for the program, or for a relay that closes it in the end.
  std::shared_ptr<ChannelHandle> new_channel(Lock& lock) { return handle(lock, new_state(lock)); }
  std::shared_ptr<ChannelState> new_state(Lock& lock) {
    static_cast<void>(lock);
    return channels_.make();
  }
  // The handle for an id that came from the other side. Throws ProtocolError for id 0.
  std::shared_ptr<ChannelHandle> channel(Lock& lock, std::uint32_t id);
  // The program's handle for a channel, made if there is none.
  std::shared_ptr<ChannelHandle> handle(Lock& lock, const std::shared_ptr<ChannelState>& state);
  // Sends this end's CLOSE, or CLOSE_ERROR with the text, if it was not sent yet.
  void close_channel(Lock& lock, const std::shared_ptr<ChannelState>& state, const std::optional<std::string>& error);
  // An error text that nobody was told yet. REQUIRES: to take one, that there is one.
  void keep_error(Lock& lock, ChannelState& state, std::string text);
  std::string take_error(Lock& lock, ChannelState& state);
  // The program has let go of its handle. Never waits.
  void drop_channel(Lock& lock, const std::shared_ptr<ChannelState>& state);
  [[nodiscard]] std::size_t open_channels(const Lock& lock) const {
    static_cast<void>(lock);
    return channels_.open();
  }
  // How strings are loaded where the channel does not say.
  [[nodiscard]] StringConfig strings(const Lock& lock) const {
    static_cast<void>(lock);
    return channels_.strings;
  }
  void set_strings(const Lock& lock, StringConfig strings) {
    static_cast<void>(lock);
    channels_.strings = strings;
  }
  void set_limits(const Lock& lock, const Limits& limits) {
    static_cast<void>(lock);
    channels_.set_limits(limits);
  }

  // Answers a request: one item on the channel it came with, then CLOSE.
  void answer(Lock& lock, std::uint32_t id, base::Buffer payload);

  // --- Windows (connection/flow.hpp) ---

  // The window of channels for which none is set. REQUIRES: there are no channels yet.
  void set_window(const Lock& lock, std::uint64_t window) {
    static_cast<void>(lock);
    channels_.window = window;
  }
  // The same for one channel, at both ends.
  void set_window(Lock& lock, const std::shared_ptr<ChannelState>& state, std::uint64_t window);
  // An item of so many bytes was taken from the channel. Tells the other end, if it is time to.
  void on_taken(Lock& lock, ChannelState& state, std::size_t bytes);
  [[nodiscard]] Flows flows(const Lock& lock) const {
    static_cast<void>(lock);
    return channels_.flows();
  }

  // --- The end ---

  // No channel gets any more items; sending is still possible.
  void end_receiving(Lock& lock);
  [[nodiscard]] bool receiving_ended(const Lock& lock) const {
    static_cast<void>(lock);
    return channels_.receiving_ended;
  }
  // Declares the other side gone, with the cause: whoever waits gets GatewayGone. Once.
  void finish(const std::string& cause);
  // The cause, once the other side is gone.
  [[nodiscard]] const std::optional<std::string>& gone(const Lock& lock) const {
    static_cast<void>(lock);
    return gone_;
  }
  // Makes the stream end on both sides: what had arrived can still be read here, then the end.
  void shut_down() { link_.shut_down(); }
  // Waits a moment for the cause, if that is not known yet.
  [[noreturn]] void throw_gone(Lock& lock, const base::Wait& wait = {});

  // --- What the program gives ---

  // What the greenlets of the program that has this end run in; none if it has none.
  [[nodiscard]] const base::Hub* hub() const { return hub_; }
  // REQUIRES: the program has not got this end yet.
  void set_hub(const base::Hub* hub) { hub_ = hub; }
  // For the threads in which code of the program runs. REQUIRES: as set_hub.
  void set_thread_scope(base::ThreadScope scope) { thread_scope_ = scope; }
  // The calling thread, which is one of them, does this.
  void in_thread_scope(const std::function<void()>& body) const { thread_scope_ ? thread_scope_(body) : body(); }

  [[nodiscard]] Dispatcher& dispatcher() { return dispatcher_; }
  [[nodiscard]] const std::shared_ptr<loop::Loop>& loop() const { return loop_; }
  [[nodiscard]] std::shared_ptr<ConnectionOwner> owner() const { return owner_.lock(); }

 private:
  // connection_frames.cpp: what the frames of the other side do.
  void take_in(Lock& lock, Incoming&& incoming) override;
  void dispatch_to_owner(Lock& lock, ConnectionOwner& owner, wire::Message&& message);
  void dispatch(Lock& lock, wire::Message&& message);
  void on_data(Lock& lock, std::uint32_t id, base::Buffer&& payload);
  void on_credit(Lock& lock, std::uint32_t id, std::uint32_t bytes);
  void on_window(Lock& lock, std::uint32_t id, const base::Buffer& payload);
  void on_reconfigure(std::uint32_t id, const base::Buffer& payload);
  void on_rings(Lock& lock);
  void on_peer_close(Lock& lock, std::uint32_t id, std::optional<std::string> error);

  void on_taken_back(Lock& lock, const Outgoing& message) override;
  void tell_taken(Lock& lock, ChannelState& state);
  void end_items(Lock& lock, const std::shared_ptr<ChannelState>& state);

  const base::MadeHere made_here_;
  std::mutex mutex_;
  const Side side_;
  const std::shared_ptr<loop::Loop> loop_;
  std::weak_ptr<ConnectionOwner> owner_;  // set by start()
  const base::Hub* hub_ = nullptr;
  base::ThreadScope thread_scope_ = nullptr;

  std::unique_ptr<const Trace> trace_;  // null unless somebody debugs

  // Each uses those before it.
  Link link_;
  Roles roles_{link_, loop_, mutex_};
  Waits waits_;
  Reading reading_;
  Writing writing_{link_, roles_, waits_, reading_, *this};
  Channels channels_;

  bool rings_agreed_ = false;  // and not used yet
  std::optional<std::string> gone_;
  Dispatcher dispatcher_{*this};
};

}  // namespace execnet::core
