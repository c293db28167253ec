// Who writes a connection's stream, and what.
//
// The caller writes: send() hands its message to the operating system itself, and what other threads queue meanwhile
// rides along. The loop writes only what nobody waits for. When the operating system takes no more, the sender waits. A
// blocked sender also reads: otherwise two peers with full buffers would wait for each other.
//
// Owner: its connection. All methods are called with the connection's mutex held, by any thread. The mutex is not held
// in a system call that can block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/buffer.hpp"
#include "base/rope.hpp"
#include "base/wait.hpp"
#include "connection/link.hpp"
#include "connection/outbox.hpp"
#include "connection/reading.hpp"
#include "connection/roles.hpp"
#include "connection/trace.hpp"
#include "connection/waits.hpp"
#include "wire/frame.hpp"

namespace execnet::core {

class Deflating;

class Writing {
 public:
  // Who is told when a message is taken back: the other side will never have it.
  class Sender {
   public:
    virtual ~Sender() = default;

    virtual void on_taken_back(Lock& lock, const Outgoing& message) = 0;
  };

  Writing(Link& link, Roles& roles, Waits& waits, Reading& reading, Sender& sender);
  ~Writing();
  Writing(const Writing&) = delete;
  Writing& operator=(const Writing&) = delete;

  enum class Sent : std::uint8_t {
    kYes,
    kLate,    // the deadline passed first: the message was taken back
    kBroken,  // the stream takes nothing any more
  };
  // Hands a message to the operating system; waits while it has no room. What wait.interrupted or the hub throws passes
  // through: then the message was sent whole or, for the receiver, not at all.
  Sent send(Lock& lock, wire::FrameType type, std::uint32_t channel, base::Rope&& payload, const base::Wait& wait);
  // Never waits: what the operating system does not take at once the loop writes.
  void post(Lock& lock, wire::FrameType type, std::uint32_t channel, base::Rope&& payload = {});
  // The same for an answer to a frame of the other side's.
  void post_reply(Lock& lock, wire::FrameType type, std::uint32_t channel, base::Rope&& payload);
  // The same for an answer that the other side does not wait for: it goes out with whatever is written next, or when
  // there are many.
  void post_reply_later(Lock& lock, wire::FrameType type, std::uint32_t channel);
  // The same for bytes that are frames already, or come before the first frame.
  void post_raw(Lock& lock, base::Buffer bytes);
  void post_credit(Lock& lock, std::uint32_t channel, std::uint32_t bytes);
  // The same for the answer to a probe, which is before all that is not on its way yet.
  void post_passed(Lock& lock, std::uint32_t number);
  // Answers that the other side has not read.
  [[nodiscard]] std::size_t unread_replies() const { return replies_; }

  // Tells it of the frames that go out from now on.
  void set_trace(const Trace* trace) {
    trace_ = trace;
    outbox_.set_trace(trace);
  }

  // From now on what follows is compressed where it pays (connection/deflating.hpp).
  void deflate();
  // The other side has a probe. Throws ProtocolError.
  void on_passed(std::uint32_t number);

  // What follows is to go into the ring: as soon as nothing is on its way out, the frame RINGS says so on the socket.
  void switch_to_ring();

  // There is room in the socket. Loop thread.
  void on_writable(Lock& lock);
  // There may be room in the ring again.
  void on_bell(Lock& lock);
  // Whether the bell must be looked after though it was not read yet.
  [[nodiscard]] bool was_woken() const {
    return (waits_for_room_ != nullptr || roles_.writer == Writer::kLoop) && link_.was_woken_to_write();
  }

  [[nodiscard]] bool failed() const { return failed_; }
  // Nothing more is written: senders that wait are told.
  void end(Lock& lock);

 private:
  // A thread inside send() whose message is not written yet, and whether it is the one who writes.
  class Sending {
   public:
    Sending(Writing& writing, Lock& lock, std::shared_ptr<Outgoing> message);
    ~Sending();  // leaves, takes the message back if it is not written, and has the lock again
    Sending(const Sending&) = delete;
    Sending& operator=(const Sending&) = delete;

    // Passes on the writing, if it had it.
    void leave();
    // False if it is too late: the other side will get the message.
    bool take_back();
    // Sleeps once, without the lock; writes if nobody else does.
    base::Woken sleep(base::Sleep& sleep);

   private:
    Writing& writing_;
    Lock& lock_;
    const std::shared_ptr<Outgoing> message_;
    Reading::Thread thread_;
    bool writes_ = false;
  };

  Sent send_in_greenlet(Lock& lock, const std::shared_ptr<Outgoing>& message, const base::Wait& wait);
  void push(Lock& lock, std::shared_ptr<Outgoing> message);
  bool write_to_ring_at_once(wire::FrameType type, std::uint32_t channel, const base::Rope& payload);
  bool write_batch(Lock& lock);
  bool write_unit(Lock& lock);
  void write_without_waiting(Lock& lock);
  void release(Lock& lock);
  [[nodiscard]] const loop::Waiter* waiting_sender() const;
  void on_done(const Outgoing& message);
  void fail();
  void switch_if_idle();

  Link& link_;
  Roles& roles_;
  Waits& waits_;
  Reading& reading_;
  Sender& sender_;
  Outbox outbox_;
  std::unique_ptr<Deflating> deflating_;  // null unless it is agreed on
  const Trace* trace_ = nullptr;
  std::vector<const Outgoing*> sending_;     // messages of the threads inside send(), in the order they came
  Waits::Thread* waits_for_room_ = nullptr;  // the thread that writes, while the ring is full
  std::size_t replies_ = 0;                  // of what is in the outbox
  std::size_t later_ = 0;                    // replies since something was written
  bool failed_ = false;
  bool to_ring_ = false;  // to be switched to
};

}  // namespace execnet::core
