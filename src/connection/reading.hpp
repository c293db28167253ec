// Who reads a connection's stream.
//
// A thread that waits for something reads in place: there is no hop from an I/O thread to the caller. At any time at
// most one thread reads. A thread that waits takes the reading over from the loop. When it has what it wanted it passes
// the reading on: to another thread that waits, else back to the loop.
//
// - A thread that has only read messages for other threads three times in a row, at short intervals, stands back. The
//   others are in a conversation, and read for themselves: that saves a wake-up for each message.
// - The way back to the loop is lazy, because a caller that has just received will most likely receive again. The loop
//   looks every millisecond while there is such traffic, and takes the reading when a millisecond has passed without
//   any. The tick itself reads nothing. An idle connection has no ticks.
// - A greenlet (base::Hub) never reads, since it waits for one descriptor and its thread has others to run. The loop
//   reads for it.
//
// Owner: its connection. All methods are called with the connection's mutex held, by any thread unless they say so.
#pragma once

#include <cstdint>
#include <functional>

#include "base/spin.hpp"
#include "base/wait.hpp"
#include "connection/frame_reader.hpp"
#include "connection/link.hpp"
#include "connection/roles.hpp"
#include "connection/trace.hpp"
#include "connection/waits.hpp"

namespace execnet::core {

class Reading {
 public:
  // What is done with the messages.
  class Receiver {
   public:
    virtual ~Receiver() = default;

    virtual void take_in(Lock& lock, Incoming&& incoming) = 0;
  };

  Reading(Link& link, Roles& roles, Waits& waits, Receiver& receiver, bool skips_noise)
      : link_(link), roles_(roles), waits_(waits), receiver_(receiver), frames_(link, skips_noise) {}

  // A thread that waits, and reads meanwhile if nobody else does.
  class Thread {
   public:
    enum class For : std::uint8_t {
      kMessage,  // it may read itself what it waits for: it spins before it sleeps, and stands back for others
      kRoom,     // to write
    };

    Thread(Reading& reading, Lock& lock, const void* topic, For what);
    ~Thread();  // leaves, and has the lock again
    Thread(const Thread&) = delete;
    Thread& operator=(const Thread&) = delete;

    void enter();
    // Passes on the reading, if it had it.
    void leave();
    [[nodiscard]] bool entered() const { return entered_; }
    // Sleeps once, without the lock; reads if nobody else does, unless it stands back. `for_room`: also until the
    // socket takes more. REQUIRES: entered().
    base::Woken sleep(base::Sleep& sleep, bool for_room = false);
    // Reads what is there already, without sleeping, unless somebody else does.
    void look();
    [[nodiscard]] bool stands_back() const { return waiting_.stands_back(); }
    [[nodiscard]] Waits::Thread& waiting() { return waiting_; }

   private:
    void read();
    void stand_back();

    Reading& reading_;
    Lock& lock_;
    Waits::Thread waiting_;
    const bool for_message_;
    bool entered_ = false;
    bool reads_ = false;
    int for_others_ = 0;  // so many reads in a row, until now, were
  };

  // Waits until `ready` (called with the lock held) says so; false if the deadline passed first. `topic` is what
  // Waits::touch() is called with when that may have changed.
  bool wait_until(Lock& lock, const void* topic, const base::Wait& wait, const std::function<bool()>& ready);

  void set_trace(const Trace* trace) { frames_.set_trace(trace); }
  // As FrameReader: by whoever reads, or before that.
  void expect_deflated() { frames_.expect_deflated(); }

  // Has the loop watch the stream.
  void arm();
  // Finds the next reader if nobody reads.
  void settle();
  // There is something to read, and the loop was to watch for it. Loop thread.
  void on_readable(Lock& lock);
  // Nothing more is read.
  void end();

  [[nodiscard]] bool within_frame() const { return frames_.within_frame(); }

 private:
  bool wait_in_greenlet(Lock& lock, const void* topic, const base::Wait& wait, const std::function<bool()>& ready);
  [[nodiscard]] bool comes_soon(bool spins);
  void read_as_loop(Lock& lock);
  void start_ticking();
  void tick();

  Link& link_;
  Roles& roles_;
  Waits& waits_;
  Receiver& receiver_;
  FrameReader frames_;  // belongs to whoever reads
  base::Spin spin_;     // the same
  bool ticking_ = false;
  std::uint64_t activity_ = 0;       // reads by callers, ever
  std::uint64_t activity_seen_ = 0;  // of them, at the last tick
};

}  // namespace execnet::core
