// How fast a line is, and whether it pays to compress what goes over it.
//
// What a program or a system call takes says little: ssh and the kernels take the first megabytes at once, and windows
// stop a sender before that. So the line itself is asked. Now and then four segments of the stream are measured: they
// go out as they are, with a PROBE before, between and behind them. The other side answers each PROBE with PASSED as
// soon as it reads it. The time between two answers is what the segment has taken, if the second PROBE was under way
// when the first answer came; else it has taken less, as a round trip is in that time.
//
// A process that had no processor for a moment writes, or answers, late: then a fast line seems slow, and, as what has
// waited comes all at once, a slow one fast. So a line is slow when its segments have taken 60 ms, and it is fast when
// they were there so soon after they were sent. Until then more are measured: as many again of one that seems slow; of
// one that seems fast, as it does when a round trip takes long, twice as many each time, up to 128.
//
//   unknown   at first. What is not measured is compressed on credit until the answers are there, up to 8 MiB of it
//   slow      it pays. Measured again after 64 MiB, or when the line seems to wait for us: after each of some units
//             nothing was under way
//   fast      it does not, or we are slower than the line. Measured again after 1 MiB, then after twice as much
//
// A line on which it pays takes less than 16 MB/s, which is not much for the processor, even where this is wrong: where
// the other side is slow, say, and not the line. Nothing is noticed that is not sent: an idle line is not asked.
//
// Owner: its Deflating. Guarded by the connection's mutex.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

#include "base/wait.hpp"

namespace execnet::core {

class Pace {
 public:
  using Time = base::Clock::time_point;

  static constexpr std::size_t kSegment = std::size_t{32} << 10;  // bytes between two probes; about

  // How much what goes out now is to be compressed, as zlib counts it; 0: not at all.
  [[nodiscard]] int level() const;
  // Whether what goes out now is measured, or what is next. Then it should go out in pieces of kSegment.
  [[nodiscard]] bool measures() const { return segments_left_ > 0 || (line_ == Line::kUnknown && !begun_); }

  // Whether the next bytes should have a probe before them.
  [[nodiscard]] bool wants_probe() const;
  // The number of the probe that goes out now.
  std::uint32_t probe(Time now);
  // The other side has it. Throws ProtocolError unless it is the next one under way.
  void passed(std::uint32_t number, Time now);

  // So many bytes go out as they are.
  void wrote(std::size_t bytes);
  // So many bytes have become a unit of that size.
  void deflated(std::size_t bytes, std::size_t unit, Time now);

 private:
  using Duration = base::Clock::duration;

  enum class Line : std::uint8_t { kUnknown, kSlow, kFast };
  struct Probe {
    std::uint32_t number;
    Time sent;
    std::size_t segment = 0;  // bytes before it that are measured; 0: they are not
    bool pressed = false;     // it was under way when the answer to the one before came
    bool last = false;        // of those four
  };
  // What is known of several segments.
  struct Rate {
    std::size_t bytes = 0;
    Duration time{};
    int count = 0;

    void add(std::size_t segment, Duration taken);
    [[nodiscard]] double per_second() const;
  };

  void begin_measuring();
  void send_segments(int count);
  void judge();
  void set_line(Line line);
  void look_for_doubt(std::size_t bytes, Time now);
  [[nodiscard]] bool doubts() const;

  Line line_ = Line::kUnknown;
  double rate_ = 0;               // bytes per second, of a slow one
  bool hurries_ = false;          // to compress well takes longer than the line does
  double most_ = 0;               // bytes per second that could be compressed when the line waited for us; 0: not known
  std::size_t credit_ = kCredit;  // so many bytes may be compressed while nothing is known
  std::size_t paused_ = 0;        // so many bytes are not compressed, since others could not be
  std::size_t next_pause_ = kPauseMin;

  std::size_t since_probe_ = 0;    // bytes, as they go over the line
  std::size_t since_measure_ = 0;  // bytes, as they are
  std::size_t interval_ = kFirst;  // to the next measurement
  int segments_ = 0;               // that are sent for this one, this time
  int segments_left_ = 0;          // of them
  bool begun_ = false;             // the probe before them was sent
  std::uint32_t next_number_ = 1;
  std::deque<Probe> under_way_;

  Time passed_at_{};  // the last answer, and when its probe was sent
  Time passed_sent_{};
  Rate all_, pressed_;  // of this measurement
  Time begun_at_{};     // of these segments: when they were begun, and how much they are
  std::size_t segments_bytes_ = 0;

  int dry_units_ = 0;  // in a row, after which nothing was under way; since then:
  Time dry_since_{};
  std::size_t dry_bytes_ = 0;
  double dry_rate_ = 0;  // when that led to the measurement; 0: it did not

  static constexpr std::size_t kFirst = std::size_t{16} << 10;
  static constexpr std::size_t kCredit = std::size_t{8} << 20;
  static constexpr std::size_t kPauseMin = std::size_t{512} << 10;
};

}  // namespace execnet::core
