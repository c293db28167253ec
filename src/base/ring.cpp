#include "base/ring.hpp"

#include <algorithm>
#include <cstring>

namespace execnet::base {
namespace {

// How often the producer checks whether the ring can start again at its beginning. It does not check each time, because
// the other end's number is in another processor's cache.
constexpr std::uint64_t kBlock = std::uint64_t{16} << 10;

}  // namespace

std::size_t RingProducer::room() {
  const std::uint64_t under_way = written_ - read_;
  return capacity_ - static_cast<std::size_t>(under_way);
}

std::size_t RingProducer::write(std::span<const iovec> parts, std::size_t least) {
  std::size_t wanted = 0;
  for (const iovec& part : parts) {
    wanted += part.iov_len;
  }
  const std::uint64_t from = written_ - origin_;
  const bool leaves_block = from / kBlock != (from + wanted) / kBlock;
  if (room() < wanted || leaves_block) {
    const std::uint64_t read = header_->read.load(std::memory_order_acquire);
    if (read - read_ > written_ - read_) {
      throw RingBroken("the other side says that it has read more than was written");
    }
    read_ = read;
  }
  if (leaves_block && read_ == written_) {  // nobody reads the origin until `written` has grown
    origin_ = written_;
    header_->origin.store(origin_, std::memory_order_relaxed);
  }
  std::size_t left = std::min(room(), wanted);
  if (left < least) {
    return 0;
  }
  const std::size_t taken = left;
  for (const iovec& part : parts) {
    const std::size_t size = std::min(part.iov_len, left);
    if (size == 0) {
      continue;  // an empty part may have no address
    }
    const std::size_t at = static_cast<std::size_t>(written_ - origin_) & (capacity_ - 1);
    const std::size_t first = std::min(size, capacity_ - at);
    const char* bytes = static_cast<const char*>(part.iov_base);
    std::memcpy(data_ + at, bytes, first);
    std::memcpy(data_, bytes + first, size - first);
    written_ += size;
    left -= size;
  }
  if (taken != 0) {
    header_->written.store(written_);
  }
  return taken;
}

bool RingProducer::may_sleep() {
  header_->producer_sleeps.store(1);
  if (written_ - header_->read.load() < capacity_) {
    header_->producer_sleeps.store(0, std::memory_order_relaxed);
    return false;
  }
  return true;
}

std::size_t RingConsumer::read(std::span<char> space) {
  const std::uint64_t there = header_->written.load(std::memory_order_acquire) - read_;
  if (there > capacity_) {
    throw RingBroken("the other side says that it has written more than there is room for");
  }
  const std::size_t size = std::min(space.size(), static_cast<std::size_t>(there));
  if (size == 0) {
    return 0;
  }
  const std::uint64_t origin = header_->origin.load(std::memory_order_relaxed);
  const std::size_t at = static_cast<std::size_t>(read_ - origin) & (capacity_ - 1);
  const std::size_t first = std::min(size, capacity_ - at);
  std::memcpy(space.data(), data_ + at, first);
  std::memcpy(space.data() + first, data_, size - first);
  read_ += size;
  header_->read.store(read_);
  return size;
}

bool RingConsumer::takes_on_waking() {
  return header_->producer_sleeps.load() != 0 && header_->written.load() - read_ <= capacity_ / 2 &&
         header_->producer_sleeps.exchange(0) != 0;
}

bool RingConsumer::may_sleep() {
  header_->consumer_sleeps.store(1);
  if (readable()) {
    is_awake();
    return false;
  }
  return true;
}

}  // namespace execnet::base
