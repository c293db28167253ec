// Flow control of a channel, seen from one end: what is on its way in both directions, and the window
// that bounds each.
//
// Owner: its ChannelState; guarded by the mutex of the connection. It only counts: who holds it sends the frames.
//
// What is on its way are the bytes of items that one end has sent and the program at the other has not yet
// taken. They are counted from the first item on, so that a window can be set at any time; the frames that
// tell what was taken, CREDIT, are only sent while there is one.
//
// An item may be sent when it fits into the window, and in any case when less than an eighth of the window is
// on its way, or nothing: so an item larger than the window passes. The other end tells what was taken as soon as
// it is an eighth of the window. Both together are why nobody waits for ever: when all was taken, less than an
// eighth is untold, and that is the condition of the next item, whatever its size.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <thread>
#include <vector>

namespace execnet::core {

// A window is a number of bytes, at least 1; this one is none.
inline constexpr std::uint64_t kUnbounded = std::numeric_limits<std::uint64_t>::max();

class Flow {
 public:
  // Who waits for room. A signal handler that sends is the same one as the send it has interrupted.
  struct Sender {
    std::thread::id thread;
    const void* greenlet;
    friend bool operator==(const Sender&, const Sender&) = default;
  };

  // `window` is that of the gateway, which holds until one is set for the channel.
  explicit Flow(std::uint64_t window) : gateway_(window), window_(window) {}

  // The window of both directions. What either end has set replaces the gateway's; when both have, the
  // smaller one holds, so that both ends come to the same whatever was first.
  [[nodiscard]] std::uint64_t window() const { return window_; }
  void set_ours(std::uint64_t window);
  void set_theirs(std::uint64_t window);

  // --- Out ---

  // Bytes on their way to the other program.
  [[nodiscard]] std::uint64_t outstanding() const { return sent_ - credited_; }
  // Whether an item of so many bytes may be sent now, before those of the senders that wait.
  [[nodiscard]] bool has_room(std::size_t bytes) const { return admits(outstanding(), bytes); }
  // The senders that wait, in the order in which they came: the first is the next.
  std::vector<Sender> senders;

  void on_sent(std::size_t bytes) { sent_ += bytes; }
  // The other end will never have it.
  void on_taken_back(std::size_t bytes) { sent_ -= bytes; }
  // False if it is more than is on the way.
  [[nodiscard]] bool on_credit(std::uint32_t bytes);

  // --- In ---

  // False if the other end was not allowed to send it. Only the gateway's window is known to both ends from the
  // first item on, so only that is checked.
  [[nodiscard]] bool on_arrived(std::size_t bytes);
  void on_taken(std::size_t bytes) { taken_ += bytes; }
  // What the other end is to be told now, at most what fits into a frame; 0: nothing yet.
  std::uint32_t credit_due();

 private:
  void choose();
  [[nodiscard]] std::uint64_t share() const { return std::max<std::uint64_t>(window_ / 8, 1); }
  [[nodiscard]] bool admits(std::uint64_t on_the_way, std::size_t bytes) const {
    return on_the_way < share() || (on_the_way < window_ && bytes <= window_ - on_the_way);
  }

  const std::uint64_t gateway_;
  std::optional<std::uint64_t> ours_;
  std::optional<std::uint64_t> theirs_;
  std::uint64_t window_;

  // Bytes, ever.
  std::uint64_t sent_ = 0;
  std::uint64_t credited_ = 0;
  std::uint64_t arrived_ = 0;
  std::uint64_t taken_ = 0;
  std::uint64_t told_ = 0;  // of those taken
};

}  // namespace execnet::core
