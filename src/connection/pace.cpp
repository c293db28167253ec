#include "connection/pace.hpp"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "wire/deflate.hpp"
#include "wire/frame.hpp"

namespace execnet::core {
namespace {

constexpr double kSlow = 16e6;                               // bytes per second, below which it pays
constexpr double kVerySlow = 4e6;                            // below which it pays to compress well
constexpr int kSegments = 4;                                 // of a measurement, at first
constexpr int kMostSegments = 128;                           // at once
constexpr std::size_t kLeastSegment = std::size_t{4} << 10;  // where only the end of it is of interest
constexpr int kLeastPressed = 2;                             // of them, to call a line slow
constexpr std::size_t kIntervalMin = std::size_t{1} << 20;
constexpr std::size_t kIntervalMax = std::size_t{32} << 20;
constexpr std::size_t kSlowIntervalMin = std::size_t{4} << 20;  // a measurement costs more there
constexpr std::size_t kSlowIntervalMax = std::size_t{64} << 20;
constexpr std::size_t kPauseMax = std::size_t{16} << 20;
constexpr std::size_t kDryUnit = std::size_t{32} << 10;  // a smaller one is soon gone
constexpr int kDryUnits = 4;
constexpr std::chrono::milliseconds kSure{60};
constexpr double kMoreHope = 1.25;  // each time

}  // namespace

void Pace::Rate::add(std::size_t segment, Duration taken) {
  bytes += segment;
  time += taken;
  ++count;
}

double Pace::Rate::per_second() const {
  const double seconds = std::chrono::duration<double>(time).count();
  return static_cast<double>(bytes) / std::max(seconds, 1e-6);
}

int Pace::level() const {
  if (measures() || paused_ > 0) {
    return 0;
  }
  switch (line_) {
    case Line::kUnknown: return begun_ && credit_ > 0 ? wire::Deflater::kGood : 0;
    case Line::kSlow: return rate_ < kVerySlow && !hurries_ ? wire::Deflater::kGood : wire::Deflater::kFast;
    case Line::kFast: break;
  }
  return 0;
}

bool Pace::wants_probe() const {
  if (segments_left_ > 0) {
    return !begun_ || since_probe_ >= kSegment;
  }
  return line_ == Line::kSlow && since_probe_ >= (under_way_.empty() ? kLeastSegment : kSegment);
}

std::uint32_t Pace::probe(Time now) {
  Probe probe{.number = next_number_++, .sent = now};
  if (segments_left_ > 0) {
    if (begun_) {
      probe.segment = since_probe_;
      probe.last = --segments_left_ == 0;
      segments_bytes_ += since_probe_;
    } else {
      begun_at_ = now;
    }
    begun_ = true;
  }
  since_probe_ = 0;
  under_way_.push_back(probe);
  return probe.number;
}

void Pace::passed(std::uint32_t number, Time now) {
  if (under_way_.empty() || under_way_.front().number != number) {
    throw wire::ProtocolError("PASSED for probe " + std::to_string(number) + ", which is not the next under way");
  }
  const Probe probe = under_way_.front();
  under_way_.pop_front();
  if (probe.segment != 0) {
    const Duration taken = now - std::max(passed_at_, passed_sent_);
    all_.add(probe.segment, taken);
    if (probe.pressed) {
      pressed_.add(probe.segment, taken);
    }
  }
  if (!under_way_.empty()) {
    under_way_.front().pressed = true;
  }
  passed_at_ = now;
  passed_sent_ = probe.sent;
  if (probe.last) {
    judge();
  }
}

void Pace::wrote(std::size_t bytes) {
  since_probe_ += bytes;
  since_measure_ += bytes;
  paused_ -= std::min(paused_, bytes);
  if (line_ != Line::kSlow && since_measure_ >= interval_) {
    begin_measuring();
  }
}

void Pace::deflated(std::size_t bytes, std::size_t unit, Time now) {
  since_probe_ += unit;
  since_measure_ += bytes;
  if (line_ == Line::kUnknown) {
    credit_ -= std::min(credit_, bytes);
  }
  if (unit > bytes - bytes / 8) {
    paused_ = next_pause_;
    next_pause_ = std::min(2 * next_pause_, kPauseMax);
  } else {
    next_pause_ = kPauseMin;
  }
  if (line_ == Line::kSlow && since_measure_ < kSlowIntervalMax) {
    look_for_doubt(bytes, now);
  } else if (since_measure_ >= interval_) {
    begin_measuring();
  }
}

void Pace::begin_measuring() {
  // One at a time.
  const bool answered = std::none_of(under_way_.begin(), under_way_.end(), [](const Probe& p) { return p.last; });
  if (segments_left_ == 0 && answered) {
    send_segments(kSegments);
    all_ = pressed_ = {};
    since_measure_ = 0;
  }
}

void Pace::send_segments(int count) {
  segments_ = segments_left_ = count;
  segments_bytes_ = 0;
  begun_ = false;
}

void Pace::judge() {
  const bool seems_slow = all_.per_second() < kSlow && pressed_.count >= kLeastPressed && pressed_.per_second() < kSlow;
  Rate with_round_trip;
  with_round_trip.add(segments_bytes_, passed_at_ - begun_at_);
  const bool seems_fast = all_.per_second() >= kSlow && with_round_trip.per_second() < kSlow;
  if ((seems_slow && pressed_.time < kSure) || (seems_fast && segments_ < kMostSegments)) {
    send_segments(seems_slow ? kSegments : 2 * segments_);
    return;
  }
  const double dry_rate = std::exchange(dry_rate_, 0);
  if (all_.per_second() >= kSlow) {
    set_line(Line::kFast);
  } else if (seems_slow) {
    rate_ = pressed_.per_second();
    const bool hurried = std::exchange(hurries_, dry_rate > 0);
    if (dry_rate > 0 && (hurried || rate_ >= kVerySlow)) {
      most_ = dry_rate;
    }
    const bool too_late = most_ > 0 && most_ < rate_;
    if (too_late) {
      most_ *= kMoreHope;
    }
    set_line(too_late ? Line::kFast : Line::kSlow);
  } else {
    interval_ = kIntervalMin;
  }
}

void Pace::set_line(Line line) {
  interval_ = line == line_ ? std::min(2 * interval_, kIntervalMax) : kIntervalMin;
  line_ = line;
  if (line == Line::kSlow) {
    interval_ = std::max(interval_, kSlowIntervalMin);
  }
  dry_units_ = 0;
  since_measure_ = 0;
}

// Whether the line has been waiting for us, as one would that is fast.
bool Pace::doubts() const { return dry_units_ > kDryUnits && since_measure_ >= interval_; }

void Pace::look_for_doubt(std::size_t bytes, Time now) {
  if (bytes < kDryUnit) {
    return;
  }
  if (!under_way_.empty()) {
    dry_units_ = 0;
    return;
  }
  if (dry_units_++ == 0) {
    dry_since_ = now;
    dry_bytes_ = 0;
  } else {
    dry_bytes_ += bytes;
  }
  if (doubts()) {
    Rate ours;
    ours.add(dry_bytes_, now - dry_since_);
    dry_rate_ = ours.per_second();
    begin_measuring();
  }
}

}  // namespace execnet::core
