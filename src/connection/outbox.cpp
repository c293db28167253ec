#include "connection/outbox.hpp"

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>

namespace execnet::core {

void Outbox::cut_next(std::size_t chunk) {
  std::shared_ptr<Outgoing> message = std::move(queue_.front());
  queue_.pop_front();
  const std::size_t left = message->payload.size() - message->cut;
  const std::size_t size = message->raw ? left : std::min(left, chunk);
  Piece piece{message, {}, 0, message->cut, size, size == left};
  wire::FrameHeader header;
  if (!message->raw) {
    header.type = message->type;
    header.flags = piece.last ? std::uint8_t{0} : wire::kMore;
    header.channel = message->channel;
    header.length = static_cast<std::uint32_t>(size);
    header.credit = message->credit;
    piece.header = wire::pack(header);
    piece.header_size = piece.header.size();
  }
  message->cut += size;
  pieces_bytes_ += piece.header_size + size;
  cut_ever_ += piece.header_size + size;
  const bool more = !piece.last;
  pieces_.push_back(std::move(piece));
  if (more) {
    requeue(std::move(message));
  }
  if (trace_ != nullptr) {
    tell(pieces_.back(), header);
  }
}

void Outbox::tell(const Piece& piece, const wire::FrameHeader& header) const {
  std::string bytes;
  piece.message->payload.runs(piece.begin, piece.size, [&](std::string_view run) { bytes += run; });
  if (piece.message->raw) {
    trace_->sends_raw(bytes);
  } else {
    trace_->sends(header, bytes);
  }
}

// Behind the other channels, but never behind a later message of its own channel.
void Outbox::requeue(std::shared_ptr<Outgoing> message) {
  const auto later =
      std::find_if(queue_.begin(), queue_.end(), [&](const auto& other) { return other->channel == message->channel; });
  queue_.insert(later, std::move(message));
}

// Urgent ones keep their order: answers to probes have that of the probes.
void Outbox::push_urgent(std::shared_ptr<Outgoing> message) {
  const auto end = std::find_if(queue_.begin(), queue_.end(), [](const auto& m) { return !m->urgent; });
  queue_.insert(end, std::move(message));
}

std::size_t Outbox::gather(std::span<iovec> parts, Cut cut) {
  while (!queue_.empty() && pieces_bytes_ < cut.ahead && pieces_.size() * 2 + 2 <= parts.size()) {
    cut_next(cut.chunk);
  }
  std::size_t count = 0;
  std::size_t skip = offset_;
  const auto add = [&](std::string_view bytes) {
    const std::size_t skipped = std::min(skip, bytes.size());
    skip -= skipped;
    bytes.remove_prefix(skipped);
    if (!bytes.empty() && count < parts.size()) {  // the rest comes with the next batch
      parts[count++] = {const_cast<char*>(bytes.data()), bytes.size()};
    }
  };
  for (const Piece& piece : pieces_) {
    add({piece.header.data(), piece.header_size});
    piece.message->payload.runs(piece.begin, piece.size, add);
  }
  return count;
}

bool Outbox::copy_whole(base::Buffer& bytes, Cut cut, std::size_t least, std::size_t most) {
  while (!queue_.empty() && pieces_bytes_ < cut.ahead) {
    cut_next(cut.chunk);
  }
  if (pieces_bytes_ < least || pieces_bytes_ > most) {
    return false;
  }
  bytes.reserve(bytes.size() + pieces_bytes_);
  for (const Piece& piece : pieces_) {
    bytes.append({piece.header.data(), piece.header_size});
    piece.message->payload.runs(piece.begin, piece.size, [&](std::string_view run) { bytes.append(run); });
  }
  return true;
}

std::vector<std::shared_ptr<Outgoing>> Outbox::written(std::size_t count) {
  std::vector<std::shared_ptr<Outgoing>> done;
  offset_ += count;
  while (!pieces_.empty()) {
    Piece& piece = pieces_.front();
    const std::size_t size = piece.header_size + piece.size;
    if (offset_ < size) {
      break;
    }
    offset_ -= size;
    pieces_bytes_ -= size;
    if (piece.last) {
      piece.message->written = true;
      done.push_back(std::move(piece.message));
    }
    pieces_.pop_front();
  }
  return done;
}

bool Outbox::retract(const std::shared_ptr<Outgoing>& message) {
  message->sender = nullptr;
  const auto found = std::find(queue_.begin(), queue_.end(), message);
  if (found == queue_.end()) {
    return false;  // all of it is cut: it will be delivered whole
  }
  if (message->cut == 0) {
    queue_.erase(found);
    return true;
  }
  auto abort = std::make_shared<Outgoing>();
  abort->type = message->type;
  abort->channel = message->channel;
  wire::FrameHeader header;
  header.type = message->type;
  header.flags = wire::kAbort;
  header.channel = message->channel;
  abort->raw = true;
  const auto bytes = wire::pack(header);
  abort->payload = base::Buffer(std::string_view(bytes.data(), bytes.size()));
  *found = std::move(abort);
  return true;
}

std::vector<std::shared_ptr<Outgoing>> Outbox::clear() {
  std::vector<std::shared_ptr<Outgoing>> dropped;
  for (Piece& piece : pieces_) {
    if (piece.last) {
      dropped.push_back(std::move(piece.message));
    }
  }
  dropped.insert(dropped.end(), std::make_move_iterator(queue_.begin()), std::make_move_iterator(queue_.end()));
  pieces_.clear();
  queue_.clear();
  pieces_bytes_ = 0;
  offset_ = 0;
  return dropped;
}

}  // namespace execnet::core
