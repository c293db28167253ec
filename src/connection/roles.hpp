// Who reads a connection's stream at the moment and who writes it, and what the loop therefore watches the stream for.
//
// At most one thread has each role. A role is taken and passed on with the connection's mutex held; whoever has it
// reads or writes without the mutex.
//
// Owner: its connection. All methods are called with the connection's mutex held.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "connection/link.hpp"
#include "connection/waits.hpp"
#include "loop/loop.hpp"

namespace execnet::core {

enum class Reader : std::uint8_t {
  kNone,    // nobody; a tick will look
  kArmed,   // the loop watches the stream
  kLoop,    // the loop is reading right now
  kCaller,  // a thread that waits for something reads
  kEnded,   // the stream has ended
};

enum class Writer : std::uint8_t {
  kNone,
  kCaller,  // a thread that sends
  kLoop,    // the loop writes when there is room
};

class Roles {
 public:
  using Ready = std::function<void(Lock& lock, std::uint32_t ready)>;
  using Failed = std::function<void(const std::string& error)>;

  Roles(const Link& link, std::shared_ptr<loop::Loop> loop, std::mutex& mutex);
  ~Roles();
  Roles(const Roles&) = delete;
  Roles& operator=(const Roles&) = delete;

  // Has the loop call `on_ready` for what update_interest() chooses, as long as `alive` lives. What that throws, and
  // what the tasks of call_after() throw, is an end of the connection: `on_failed` is told, without the mutex.
  void start(std::weak_ptr<void> alive, Ready on_ready, Failed on_failed);
  // To be called when a role has changed hands.
  void update_interest();
  // Runs `task` on the loop thread that much later, as long as the connection lives. REQUIRES: start() was called.
  void call_after(std::chrono::milliseconds delay, std::function<void(Lock&)> task);

  // Whether the loop waits for room in a ring. The other side's bell tells of it, and the bell is read from the socket.
  [[nodiscard]] bool loop_waits_for_bell() const { return writer == Writer::kLoop && link_.writes_ring(); }

  Reader reader = Reader::kNone;
  Writer writer = Writer::kNone;

 private:
  void run_in_loop(const std::function<void(Lock&)>& body);

  const Link& link_;
  const std::shared_ptr<loop::Loop> loop_;
  std::mutex& mutex_;
  std::weak_ptr<void> alive_;
  Failed on_failed_;
  loop::Loop::Id watch_ = 0;
  std::uint32_t interest_ = 0;
};

}  // namespace execnet::core
