#include "connection/deflating.hpp"

#include <algorithm>
#include <exception>
#include <span>
#include <utility>

namespace execnet::core {
namespace {

// A unit takes some milliseconds, in which its thread does nothing else.
constexpr std::size_t kUnit = std::size_t{64} << 10;
constexpr std::size_t kLeast = 256;  // less is not worth it

}  // namespace

bool Deflating::prepare(Outbox& outbox) {
  if (covered_ != 0) {
    return true;
  }
  if (outbox.empty()) {
    return false;
  }
  const bool probes = pace_.wants_probe();
  if (probes) {
    auto probe = std::make_shared<Outgoing>();
    probe->type = wire::FrameType::kProbe;
    probe->channel = 0;
    probe->credit = pace_.probe(base::Clock::now());
    probe->urgent = true;
    outbox.push(std::move(probe));
  }
  level_ = pace_.level();
  if (level_ == 0 || probes || outbox.within_piece()) {  // a probe does not wait for a unit
    return false;
  }
  if (!outbox.copy_whole(frames_, {kUnit, kUnit}, kLeast, wire::kMaxInflated)) {
    return false;
  }
  covered_ = frames_.size();
  return true;
}

// Where a unit may follow, or a probe, no frame is begun that it would have to wait for.
Outbox::Cut Deflating::cut() const {
  return level_ != 0        ? Outbox::Cut{kUnit, 1}
         : pace_.measures() ? Outbox::Cut{Pace::kSegment, Pace::kSegment}
                            : Outbox::Cut{};
}

void Deflating::on_gathered(const Outbox& outbox) {
  const std::uint64_t all = outbox.cut_ever();
  pace_.wrote(static_cast<std::size_t>(all - std::exchange(told_, all)));
}

void Deflating::deflate(const Trace* trace) {
  try {
    if (!deflater_) {
      deflater_.emplace();
    }
    unit_.extend(wire::kHeaderSize);
    deflater_->deflate(frames_.view(), level_, unit_);
    const wire::FrameHeader header{.type = wire::FrameType::kDeflated,
                                   .length = static_cast<std::uint32_t>(unit_.size() - wire::kHeaderSize),
                                   .credit = static_cast<std::uint32_t>(covered_)};
    const auto bytes = wire::pack(header);
    std::copy(bytes.begin(), bytes.end(), unit_.data());
    if (trace != nullptr) {
      trace->sends(header, {});
    }
  } catch (const std::exception&) {  // No memory: they go as they are, and another stream begins with the next unit.
    deflater_.reset();
    unit_ = std::move(frames_);
  }
}

ssize_t Deflating::write(Link& link, const Trace* trace) {
  if (unit_.empty()) {
    deflate(trace);
  }
  const iovec part{unit_.data() + at_, unit_.size() - at_};
  const ssize_t count = link.write(std::span(&part, 1));
  at_ += static_cast<std::size_t>(std::max<ssize_t>(count, 0));
  return count;
}

std::vector<std::shared_ptr<Outgoing>> Deflating::written(Outbox& outbox) {
  if (at_ < unit_.size()) {
    return {};
  }
  pace_.deflated(covered_, unit_.size(), base::Clock::now());
  auto done = outbox.written(covered_);
  told_ = outbox.cut_ever();
  drop();
  return done;
}

void Deflating::drop() {
  frames_.clear();
  unit_.clear();
  covered_ = at_ = 0;
}

}  // namespace execnet::core
