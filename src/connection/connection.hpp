// One end of a gateway's byte stream: frames in and out, and the channels they belong to. The same
// class serves the coordinator and the native worker.
//
// Owner: its GatewayEnd or WorkerEnd, and every ChannelHandle. Any thread may call any method.
//
// Whoever waits, reads. At any time at most one thread reads the stream. A thread that waits for
// something (an item, a close, a HELLO) takes the reading over from the loop, reads in place, and
// passes it on when it has what it wanted: to another thread that waits, else back to the loop. One
// that waits for long while others converse stands back, and leaves the reading to them. The
// way back to the loop is lazy: a caller that has just received will most likely receive again, so
// the loop looks every millisecond, only while there is such traffic, and takes the reading back
// when a millisecond has passed without any. An idle connection costs no wake-ups.
//
// A greenlet (base::Hub) never reads, since it waits for one descriptor and its thread has others to
// run: the loop reads for it, and an eventfd of the wait tells it.
//
// Writing works the same: the caller writes; what others queue meanwhile rides along; the loop
// writes only what nobody waits for. Who waits for room to write reads, too.
//
// Four sources: connection.cpp (its life, its channels), connection_reading.cpp, connection_writing.cpp,
// connection_flow.cpp (windows).
//
// Lock order: mutex_ before the loop's own; never held in a system call that can block, nor while
// code that is not ours runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/buffer.hpp"
#include "base/fd.hpp"
#include "base/fork.hpp"
#include "base/rope.hpp"
#include "base/spin.hpp"
#include "base/thread_scope.hpp"
#include "base/wait.hpp"
#include "connection/channel_state.hpp"
#include "connection/dispatcher.hpp"
#include "connection/id_set.hpp"
#include "connection/link.hpp"
#include "connection/outbox.hpp"
#include "loop/loop.hpp"
#include "loop/waiter.hpp"
#include "wire/frame.hpp"

namespace execnet::core {

enum class Side : std::uint8_t { kCoordinator, kWorker };

// What the two kinds of owner do differently. All but on_stream_end are called with the
// connection's mutex held, on whichever thread reads: they note what came and return.
class ConnectionOwner {
 public:
  using Lock = std::unique_lock<std::mutex>;

  virtual ~ConnectionOwner() = default;

  virtual void on_hello(Lock& lock, base::Buffer payload) = 0;
  virtual void on_exec(Lock& lock, const std::shared_ptr<ChannelState>& channel, base::Buffer payload) = 0;
  virtual void on_open(Lock& lock, const std::shared_ptr<ChannelState>& channel, base::Buffer payload) = 0;
  virtual void on_status_request(Lock& lock, std::uint32_t channel) = 0;
  virtual void on_terminate(Lock& lock) = 0;
  // Nothing more comes. `error` says why if it was not an orderly end. The owner calls finish(),
  // now or later, when it knows the cause.
  virtual void on_stream_end(const std::string& error) = 0;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Lock = std::unique_lock<std::mutex>;

  // The owner is told of frames from start() on, and stays alive until stop() has returned.
  Connection(base::Fd stream, std::shared_ptr<loop::Loop> loop, Side side);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Unless told otherwise the loop reads then; else who waits first.
  void start(std::weak_ptr<ConnectionOwner> owner, bool loop_reads = true);

  // Throws GatewayGone in a process forked from the one that made this: the stream and the threads are
  // the parent's.
  [[nodiscard]] Lock lock();
  [[nodiscard]] bool in_forked_copy() const { return made_here_.in_forked_copy(); }

  // --- Writing ---

  // Hands a message to the operating system; waits while it has no room. When the wait is
  // abandoned the message was sent whole or, for the receiver, not at all. Throws GatewayGone; TimeoutError
  // only if it was not sent.
  void send(Lock& lock, wire::FrameType type, std::uint32_t channel, base::Rope payload, const base::Wait& wait);
  // Never waits: what the operating system does not take at once the loop writes.
  void post(Lock& lock, wire::FrameType type, std::uint32_t channel, base::Rope payload = {});
  // The same for bytes that are frames already, or come before the first frame.
  void post_raw(Lock& lock, base::Buffer bytes);
  // Tells the other end that so many bytes of the channel's items were taken, if it is time to.
  void on_taken(Lock& lock, ChannelState& state, std::size_t bytes);
  // Goes out with whatever is written next: for what the other side does not wait for.
  void post_later(Lock& lock, wire::FrameType type, std::uint32_t channel);

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

  // --- Waiting ---

  // Waits until `ready` (called with the lock held) says so; false if the deadline passed first.
  // `topic` is what touch() is called with when that may have changed.
  bool wait_until(Lock& lock, const void* topic, const base::Wait& wait, const std::function<bool()>& ready);
  // Wakes the threads that wait for `topic`, or all.
  void touch(Lock& lock, const void* topic);
  void touch_all(Lock& lock);

  // --- Channels ---

  // A new channel of this side's making: for the program, or for a relay that closes it in the end.
  std::shared_ptr<ChannelHandle> new_channel(Lock& lock);
  std::shared_ptr<ChannelState> new_state(Lock& lock);
  // The handle for an id that came from the other side.
  std::shared_ptr<ChannelHandle> channel(Lock& lock, std::uint32_t id);
  // The program's handle for a channel, made if there is none.
  std::shared_ptr<ChannelHandle> handle(Lock& lock, const std::shared_ptr<ChannelState>& state);
  // Sends this end's CLOSE, or CLOSE_ERROR with the text, if it was not sent yet.
  void close_channel(Lock& lock, const std::shared_ptr<ChannelState>& state, const std::optional<std::string>& error);
  // The program has let go of its handle. Never waits.
  void drop_channel(Lock& lock, const std::shared_ptr<ChannelState>& state);
  [[nodiscard]] std::size_t open_channels(Lock& lock) const;
  // Nothing will be added to the channel's items: whoever waits for some, or has a callback, is told.
  void end_items(Lock& lock, const std::shared_ptr<ChannelState>& state);
  // How strings are loaded where the channel does not say.
  [[nodiscard]] StringConfig strings(const Lock& lock) const;
  void set_strings(const Lock& lock, StringConfig strings);

  // The window of channels for which none is set (flow.hpp). REQUIRES: there are no channels yet.
  void set_window(const Lock& lock, std::uint64_t window);
  // The same for one channel, at both ends.
  void set_window(Lock& lock, const std::shared_ptr<ChannelState>& state, std::uint64_t window);
  // The senders that wait for room in a window, and the bytes that are on their way in those there are.
  struct Flows {
    std::size_t blocked = 0;
    std::uint64_t outstanding = 0;
  };
  [[nodiscard]] Flows flows(const Lock& lock) const;

  // Answers a request: one item on the channel it came with, then CLOSE.
  void answer(Lock& lock, std::uint32_t id, base::Buffer payload);

  // --- The end ---

  // No channel gets any more items; sending is still possible.
  void end_receiving(Lock& lock);
  [[nodiscard]] bool receiving_ended(const Lock& lock) const;
  // Declares the other side gone, with the cause: whoever waits gets GatewayGone. Once.
  void finish(const std::string& cause);
  // The cause, once the other side is gone.
  [[nodiscard]] const std::optional<std::string>& gone(const Lock& lock) const;
  // Makes the stream end on both sides: what had arrived can still be read here, then the end.
  void shut_down();
  // Waits a moment for the cause, if that is not known yet.
  [[noreturn]] void throw_gone(Lock& lock, const base::Wait& wait = {});

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
  enum class Reader : std::uint8_t {
    kNone,    // nobody; a tick will look
    kArmed,   // the loop watches the stream
    kLoop,    // the loop is reading right now
    kCaller,  // a thread that waits for something reads
    kEnded,   // the stream has ended
  };
  enum class Writer : std::uint8_t { kNone, kCaller, kLoop };
  // What wakes a greenlet.
  struct Bell {
    explicit Bell(const void* wanted) : topic(wanted) {}
    void ring();

    const void* const topic;
    loop::Waiter waiter;
    bool rung = false;
  };
  // A thread inside wait_until, and whether it is the one who reads.
  class Waiting {
   public:
    // `for_message`: it is for what it may read itself, not for room to write. So it is awake for a moment before it
    // sleeps, for what comes soon, and stands back when all that it reads is for others.
    Waiting(Connection& connection, Lock& lock, const void* topic, bool for_message);
    ~Waiting();  // leaves, and has the lock again
    Waiting(const Waiting&) = delete;
    Waiting& operator=(const Waiting&) = delete;

    void enter();
    // Passes on the reading, if it had it.
    void leave();
    // Sleeps once, without the lock; reads if nobody else does, unless it stands back. `for_room`: also until the
    // socket takes more. REQUIRES: entered().
    base::Woken sleep(base::Sleep& sleep, bool for_room = false);
    // Reads what is there already, without sleeping, unless somebody else does. For who has the reading and other
    // things to do.
    void look();
    [[nodiscard]] bool is_for(const void* topic) const { return topic_ == topic; }
    [[nodiscard]] bool entered() const { return entered_; }
    [[nodiscard]] const loop::Waiter& waiter() const { return waiter_; }
    // Awake, it will look again before it sleeps.
    void wake();
    // Whether it can be woken in order to read.
    [[nodiscard]] bool may_read() const { return asleep_ && !stands_back_; }
    [[nodiscard]] bool stands_back() const { return stands_back_; }

   private:
    static constexpr int kMostForOthers = 3;

    void read();
    void stand_back();

    Connection& connection_;
    Lock& lock_;
    loop::Waiter& waiter_;
    const void* const topic_;
    const bool for_message_;
    bool entered_ = false;
    bool reads_ = false;
    bool asleep_ = false;
    int for_others_ = 0;        // so many reads in a row, until now, were
    bool stands_back_ = false;  // does not read any more
  };
  // A greenlet inside wait_until. What others need to know of it is not on its stack.
  class Parked {
   public:
    Parked(Connection& connection, Lock& lock, const void* topic);
    ~Parked();  // has the lock again
    Parked(const Parked&) = delete;
    Parked& operator=(const Parked&) = delete;

    // Lets others run, without the lock, until there may be something new.
    void sleep(const base::Wait& wait);

   private:
    Connection& connection_;
    Lock& lock_;
    const std::shared_ptr<Bell> bell_;
  };
  // A thread inside send() whose message is not written yet, and whether it is the one who writes. It reads like any
  // other that waits: what it waits for may be that the other side, which waits for room as well, is read from.
  class Writing {
   public:
    Writing(Connection& connection, Lock& lock, std::shared_ptr<Outgoing> message);
    ~Writing();  // leaves, takes the message back if it is not written, and has the lock again
    Writing(const Writing&) = delete;
    Writing& operator=(const Writing&) = delete;

    // Passes on the writing, if it had it.
    void leave();
    // False if it is too late: the other side will get the message.
    bool take_back();
    // Sleeps once, without the lock; writes if nobody else does.
    base::Woken sleep(base::Sleep& sleep);

   private:
    Connection& connection_;
    Lock& lock_;
    const std::shared_ptr<Outgoing> message_;
    Waiting waiting_;
    bool writes_ = false;
  };
  // What one read of the stream gave.
  struct Incoming {
    std::vector<wire::Message> messages;
    bool ended = false;
    bool bell = false;  // as Link::Got
    std::string error;
  };

  [[nodiscard]] Incoming read_available();
  [[nodiscard]] std::size_t receive_into(std::span<char> space, Incoming& incoming);
  void look_for_magic(std::string_view bytes, Incoming& incoming);
  void parse(Incoming& incoming);
  void take_in(Lock& lock, Incoming incoming);
  [[nodiscard]] static bool is_for_owner(wire::FrameType type);
  void dispatch_to_owner(Lock& lock, ConnectionOwner& owner, wire::Message message);
  void dispatch(Lock& lock, wire::Message message);
  std::shared_ptr<ChannelState> state_for(Lock& lock, std::uint32_t id);
  void on_credit(Lock& lock, std::uint32_t id, std::uint32_t bytes);
  void on_window(Lock& lock, std::uint32_t id, const base::Buffer& payload);
  void on_rings(Lock& lock);
  void tell_taken(Lock& lock, ChannelState& state);
  void on_peer_close(Lock& lock, std::uint32_t id, std::optional<std::string> error);
  void forget_if_over(const std::shared_ptr<ChannelState>& state);
  [[nodiscard]] bool is_ours(std::uint32_t id) const;

  bool wait_parked(Lock& lock, const void* topic, const base::Wait& wait, const std::function<bool()>& ready);
  void settle_reading(Lock& lock);
  [[nodiscard]] bool has_readers(Lock& lock) const;
  void wake_a_reader(Lock& lock);
  void start_ticking(Lock& lock);
  // For what the loop calls: what goes wrong there ends the connection.
  void guarded(const std::function<void()>& body);
  void tick();
  void on_ready(std::uint32_t ready);
  void read_as_loop(Lock& lock);
  void arm(Lock& lock);
  [[nodiscard]] bool comes_soon(bool spins);

  bool write_to_ring_at_once(Lock& lock, wire::FrameType type, std::uint32_t channel, const base::Rope& payload);
  bool write_batch(Lock& lock);
  void write_without_waiting(Lock& lock);
  void release_writing(Lock& lock);
  void tell_sender(Lock& lock, const Outgoing& message);
  void fail_writing(Lock& lock);
  void update_interest(Lock& lock);
  // As soon as nothing is on its way out, tells the other side that what follows comes by the ring.
  void switch_to_ring(Lock& lock);
  void switch_if_idle(Lock& lock);
  void on_bell(Lock& lock);
  void see_that_the_bell_is_heard(Lock& lock);

  const base::MadeHere made_here_;
  Link link_;
  const std::shared_ptr<loop::Loop> loop_;
  const Side side_;
  std::weak_ptr<ConnectionOwner> owner_;  // set by start()
  loop::Loop::Id watch_ = 0;              // set by start()
  const base::Hub* hub_ = nullptr;
  base::ThreadScope thread_scope_ = nullptr;

  std::mutex mutex_;

  // Reading. The parser belongs to whoever has the role.
  Reader reader_ = Reader::kNone;
  std::uint32_t interest_ = 0;  // what the loop watches the stream for
  std::vector<Waiting*> waiting_;
  std::uint64_t woken_ = 0;  // of these, of who does not stand back, ever
  std::vector<std::shared_ptr<Bell>> parked_;
  bool ticking_ = false;
  std::uint64_t activity_ = 0;        // reads by callers, ever
  std::uint64_t activity_seen_ = 0;   // of them, at the last tick
  std::optional<std::string> noise_;  // what came before the worker's first bytes; none once they came
  base::Spin spin_;
  wire::FrameParser parser_;
  wire::MessageAssembler assembler_;

  // Writing.
  Writer writer_ = Writer::kNone;
  bool writing_failed_ = false;
  bool rings_agreed_ = false;  // and not used yet
  bool to_ring_ = false;       // to be switched to
  Outbox outbox_;
  Waiting* waits_for_room_ = nullptr;  // the thread that writes, while the ring is full

  // Channels.
  std::uint32_t next_id_;
  IdSet forgotten_;  // ids of the other side's making that are over and done with
  StringConfig strings_;
  std::uint64_t window_ = kUnbounded;
  bool receiving_ended_ = false;
  std::unordered_map<std::uint32_t, std::shared_ptr<ChannelState>> channels_;

  std::optional<std::string> gone_;
  Dispatcher dispatcher_{*this};
};

}  // namespace execnet::core
