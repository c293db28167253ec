// Flow control of a channel, seen from one end: the bytes on their way in both directions, and the window
// that bounds each.
//
// Owner: its ChannelState; guarded by the mutex of the connection. It only counts; its user sends the frames.
//
// Bytes are on their way while one end has sent their item and the program at the other end has not yet
// taken it. They are counted from the first item on, so that a window can be set at any time without a handshake.
// CREDIT frames, which report what was taken, are only sent while there is a window.
//
// An item may be sent if it fits into the window. It may always be sent if less than an eighth of the window is
// on its way, so an item that is larger than the window passes. The other end reports what was taken as soon as
// that is an eighth of the window. Together these rules make sure that no sender waits for ever: when everything was
// taken, less than an eighth is unreported, and then the next item may be sent, whatever its size. CREDIT stays rare.
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
  // A blocked sender. A signal handler that sends counts as the send it has interrupted.
  struct Sender {
    std::thread::id thread;
    const void* greenlet;
    friend bool operator==(const Sender&, const Sender&) = default;
  };

  // `window` is the gateway's. It holds until one is set for the channel.
  explicit Flow(std::uint64_t window) : gateway_(window), window_(window) {}

  // The window of both directions. A window that either end has set replaces the gateway's. When both ends have set
  // one, the smaller holds, so that both come to the same result whichever was first.
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
  // False if the credit is for more than is on the way.
  [[nodiscard]] bool on_credit(std::uint32_t bytes);

  // --- In ---

  // False if the other end was not allowed to send the item. Only the gateway's window is checked, because only that is
  // known to both ends from the first item on.
  [[nodiscard]] bool on_arrived(std::size_t bytes);
  void on_taken(std::size_t bytes) { taken_ += bytes; }
  // The bytes to give credit for now, at most as many as fit into a frame; 0 if it is not yet time.
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
