#include "connection/link.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

namespace execnet::core {
namespace {

// Of each ring. What is larger goes through in parts.
constexpr std::size_t kCapacity = std::size_t{1} << 20;
// The headers of both rings, the coordinator's writing one first, then their data in the same order.
constexpr std::size_t kHeaders = 4096;
constexpr std::size_t kSize = kHeaders + 2 * kCapacity;
static_assert(2 * sizeof(base::RingHeader) <= kHeaders);
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
// Of descriptors with one message. Alignment leaves room for a second, whoever asks for one.
constexpr std::size_t kMostPassed = 2;

// Memory that shrinks would end this process by SIGBUS, and so would a file that another one can cut off. Files have no
// seals: to ask for them fails.
bool cannot_shrink(const base::Fd& memory) {
  struct stat status{};
  const int seals = ::fcntl(memory.get(), F_GET_SEALS);
  return seals >= 0 && (seals & kSeals) == kSeals && ::fstat(memory.get(), &status) == 0 &&
         status.st_size == static_cast<off_t>(kSize);
}

}  // namespace

Link::~Link() {
  if (memory_ != nullptr) {
    ::munmap(memory_, kSize);
  }
}

void Link::shut_down() const { ::shutdown(socket_.get(), SHUT_RDWR); }

void Link::offer() {
  rlimit largest{};
  if (::getrlimit(RLIMIT_FSIZE, &largest) != 0 || largest.rlim_cur < kSize) {
    return;  // ftruncate(2) would be answered with SIGXFSZ
  }
  base::Fd memory(::memfd_create("execnet", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (memory && ::ftruncate(memory.get(), kSize) == 0 && ::fcntl(memory.get(), F_ADD_SEALS, kSeals) == 0 &&
      map(memory, true)) {
    to_give_ = std::move(memory);
  }
}

bool Link::map(const base::Fd& memory, bool coordinator) {
  void* mapped = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (mapped == MAP_FAILED) {
    return false;
  }
  memory_ = mapped;
  auto* const bytes = static_cast<char*>(mapped);
  auto* const headers = static_cast<base::RingHeader*>(mapped);
  char* const data = bytes + kHeaders;
  const std::size_t out = coordinator ? 0 : 1;
  const std::size_t in = 1 - out;
  producer_.emplace(headers + out, data + out * kCapacity, kCapacity);
  consumer_.emplace(headers + in, data + in * kCapacity, kCapacity);
  return true;
}

// All descriptors that came are closed in the end; the one of an offer when it is mapped.
void Link::take_offer(msghdr& message) {
  std::array<base::Fd, kMostPassed> passed;
  std::size_t count = 0;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
      const unsigned char* at = CMSG_DATA(header);
      for (std::size_t left = header->cmsg_len - CMSG_LEN(0); left >= sizeof(int); left -= sizeof(int)) {
        int fd = -1;
        std::memcpy(&fd, at, sizeof fd);
        at += sizeof fd;
        passed.at(count++).reset(fd);
      }
    }
  }
  if (count == 1 && (message.msg_flags & MSG_CTRUNC) == 0 && cannot_shrink(passed[0])) {
    map(passed[0], false);
  }
}

Link::Got Link::read(std::span<char> space) {
  Got got;
  if (!reads_ring_) {
    return read_socket(space);
  }
  got.count = consumer_->read(space);
  if (got.count == 0) {
    // All bells at once; and at the end what was written before it.
    std::array<char, 64> bells;
    got = read_socket(bells);
    got.bell = got.count != 0;
    got.count = consumer_->read(space);
    got.ended = got.ended && got.count == 0;
  }
  if (got.count != 0 && consumer_->takes_on_waking()) {
    ring_the_bell();
  }
  return got;
}

Link::Got Link::read_socket(std::span<char> space) {
  iovec part{space.data(), space.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMostPassed * sizeof(int))> control;
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  if (expects_offer_) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
  }
  ssize_t count = 0;
  do {
    count = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (count < 0 && errno == EINTR);
  if (count > 0) {
    if (std::exchange(expects_offer_, false)) {
      take_offer(message);
    }
    return {.count = static_cast<std::size_t>(count)};
  }
  return {.ended = count == 0 || errno != EAGAIN};
}

void Link::read_from_ring() {
  reads_ring_ = true;
  consumer_->begin();
}

// Until the other side reads from its ring, what comes on the socket is frames to it; then it looks by itself.
void Link::ring_the_bell() {
  if (!producer_->is_read()) {
    return;
  }
  const char bell = '!';
  static_cast<void>(::send(socket_.get(), &bell, 1, MSG_DONTWAIT | MSG_NOSIGNAL));  // full means: it is rung
}

ssize_t Link::write_ring(std::span<const iovec> parts, std::size_t least) {
  try {
    const std::size_t count = producer_->write(parts, least);
    if (count != 0 && producer_->takes_on_waking()) {
      ring_the_bell();
    }
    return static_cast<ssize_t>(count);
  } catch (const base::RingBroken&) {
    shut_down();  // who reads is told
    return -1;
  }
}

bool Link::write_whole(std::span<const iovec> parts) {
  std::size_t size = 0;
  for (const iovec& part : parts) {
    size += part.iov_len;
  }
  return write_ring(parts, size) > 0;
}

ssize_t Link::write(std::span<const iovec> parts) {
  if (writes_ring_) {
    return write_ring(parts, 1);
  }
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(parts.data());
  message.msg_iovlen = parts.size();
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  if (to_give_) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* const header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int fd = to_give_.get();
    std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  ssize_t count = 0;
  do {
    count = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (count < 0 && errno == EINTR);
  if (count >= 0) {
    to_give_.reset();
    return count;
  }
  if (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM || errno == ETOOMANYREFS) {
    return 0;  // later there will be room
  }
  shut_down();  // whatever it is: who reads is to see that nothing comes of it any more
  return -1;
}

}  // namespace execnet::core
