#include "connection/link.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/syscall.hpp"
#include "elsewhere.hpp"
#include "resource_limits.hpp"
#include "soak.hpp"

namespace execnet::core {
namespace {

class LinkTest : public ::testing::Test {
 protected:
  LinkTest() {
    auto [coordinator, worker] = base::socket_pair();
    coordinator_ = std::make_unique<Link>(std::move(coordinator));
    worker_ = std::make_unique<Link>(std::move(worker));
    worker_->expect_offer();
  }

  static std::size_t write(Link& link, std::string_view text) {
    const iovec part{const_cast<char*>(text.data()), text.size()};
    const ssize_t count = link.write(std::span(&part, 1));
    EXPECT_GE(count, 0);
    return static_cast<std::size_t>(count);
  }
  static std::string read(Link& link) {
    std::string text(1 << 16, '\0');
    const Link::Got got = link.read(text);
    text.resize(got.count);
    return text;
  }
  static bool rung(const Link& link) {
    pollfd fd{link.fd(), POLLIN, 0};
    return ::poll(&fd, 1, 0) == 1;
  }
  // As the two ends of a connection do it.
  void agree() {
    coordinator_->offer();
    write(*coordinator_, "hello");
    ASSERT_EQ(read(*worker_), "hello");
    ASSERT_TRUE(worker_->has_rings());
    for (Link* link : {coordinator_.get(), worker_.get()}) {
      link->write_to_ring();
      link->read_from_ring();
    }
  }

  std::unique_ptr<Link> coordinator_;
  std::unique_ptr<Link> worker_;
};

TEST_F(LinkTest, IsASocketWithoutAnOffer) {
  EXPECT_EQ(write(*coordinator_, "hello"), 5U);
  EXPECT_TRUE(rung(*worker_));
  EXPECT_EQ(read(*worker_), "hello");
  EXPECT_FALSE(worker_->has_rings());
  EXPECT_TRUE(worker_->may_sleep_reading());
  coordinator_.reset();
  std::array<char, 10> space;
  EXPECT_TRUE(worker_->read(space).ended);
}

TEST_F(LinkTest, RingsCarryWhatIsWrittenBothWaysWithoutTheSocket) {
  agree();
  write(*coordinator_, "there");
  write(*worker_, "and back");
  EXPECT_FALSE(rung(*worker_));
  EXPECT_FALSE(rung(*coordinator_));
  EXPECT_EQ(read(*worker_), "there");
  EXPECT_EQ(read(*coordinator_), "and back");
}

TEST_F(LinkTest, TheBellRingsForWhoSleeps) {
  agree();
  EXPECT_TRUE(worker_->may_sleep_reading());
  write(*coordinator_, "a");
  write(*coordinator_, "b");
  EXPECT_TRUE(rung(*worker_));
  EXPECT_FALSE(worker_->may_sleep_reading());
  EXPECT_EQ(read(*worker_), "ab");
  std::array<char, 10> space;
  const Link::Got got = worker_->read(space);
  EXPECT_TRUE(got.bell);
  EXPECT_EQ(got.count, 0U);
  EXPECT_FALSE(got.ended);
  EXPECT_FALSE(rung(*worker_));
}

TEST_F(LinkTest, TheReaderRingsForAWriterWhoWaitsForRoom) {
  agree();
  const std::string much(std::size_t{3} << 20, 'x');
  const std::size_t taken = write(*coordinator_, much);
  EXPECT_LT(taken, much.size());
  EXPECT_TRUE(coordinator_->may_sleep_writing());
  while (!rung(*coordinator_)) {
    ASSERT_NE(read(*worker_).size(), 0U);
  }
  EXPECT_FALSE(coordinator_->may_sleep_writing());
  std::array<char, 10> space;
  EXPECT_TRUE(coordinator_->read(space).bell);
  EXPECT_GT(write(*coordinator_, much), 0U);
}

TEST_F(LinkTest, TheBellIsNotRungBeforeTheOtherSideReadsFromItsRing) {
  coordinator_->offer();
  write(*coordinator_, "hello");
  read(*worker_);
  coordinator_->write_to_ring();
  worker_->read_from_ring();
  while (write(*coordinator_, std::string(1 << 16, 'x')) != 0) {
  }
  ASSERT_TRUE(coordinator_->may_sleep_writing());
  while (!read(*worker_).empty()) {
  }
  EXPECT_FALSE(rung(*coordinator_));
  worker_->write_to_ring();
  EXPECT_FALSE(rung(*coordinator_));
  coordinator_->read_from_ring();
  EXPECT_FALSE(coordinator_->may_sleep_writing());  // sees it without
}

TEST_F(LinkTest, WhatIsInTheRingIsReadAfterTheEnd) {
  agree();
  write(*coordinator_, "last words");
  coordinator_.reset();
  EXPECT_EQ(read(*worker_), "last words");
  std::array<char, 10> space;
  EXPECT_TRUE(worker_->read(space).ended);
}

TEST_F(LinkTest, WhoShutsDownReadsWhatWasThere) {
  agree();
  write(*coordinator_, "late");
  worker_->shut_down();
  EXPECT_EQ(read(*worker_), "late");
  std::array<char, 10> space;
  EXPECT_TRUE(worker_->read(space).ended);
}

// What a worker is given that is no such memory.
void send_with(int socket, std::initializer_list<int> fds) {
  char byte = 'x';
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(8 * sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
  std::memcpy(CMSG_DATA(header), fds.begin(), fds.size() * sizeof(int));
  ASSERT_EQ(::sendmsg(socket, &message, 0), 1);
}
void send_with(int socket, int fd) { send_with(socket, {fd}); }

constexpr off_t kRightSize = off_t{4096} + (off_t{2} << 20);

base::Fd sealed_memory(int seals) {
  base::Fd memory(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_EQ(::ftruncate(memory.get(), kRightSize), 0);
  EXPECT_EQ(::fcntl(memory.get(), F_ADD_SEALS, seals), 0);
  return memory;
}

std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

// Whether a worker that is offered these, and reads them, takes them for rings.
bool takes(std::initializer_list<int> fds) {
  auto [ours, theirs] = base::socket_pair();
  Link worker(std::move(theirs));
  worker.expect_offer();
  send_with(ours.get(), fds);
  std::array<char, 10> space;
  const std::size_t before = open_descriptors();
  EXPECT_EQ(worker.read(space).count, 1U);
  EXPECT_EQ(open_descriptors(), before) << "none of what came stays open";
  return worker.has_rings();
}

TEST_F(LinkTest, AFileInPlaceOfMemoryIsRefusedForItCanBeCutOff) {
  std::FILE* const file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  const int fd = ::fileno(file);
  ASSERT_EQ(::ftruncate(fd, kRightSize), 0);
  EXPECT_FALSE(takes({fd}));
  std::fclose(file);
}

TEST_F(LinkTest, WhateverIsOfferedIsClosedAgain) {
  constexpr int kAll = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
  const base::Fd good = sealed_memory(kAll);
  auto [in, out] = base::make_pipe();
  EXPECT_TRUE(takes({good.get()}));
  EXPECT_FALSE(takes({in.get()}));
  EXPECT_FALSE(takes({good.get(), good.get()}));
  EXPECT_FALSE(takes({good.get(), in.get(), out.get()}));
  EXPECT_FALSE(takes({in.get(), in.get(), in.get(), in.get(), in.get(), in.get(), in.get(), good.get()}));
  EXPECT_FALSE(takes({sealed_memory(kAll & ~F_SEAL_SHRINK).get()}));
  EXPECT_FALSE(takes({sealed_memory(kAll | F_SEAL_WRITE).get()}));  // cannot be written, so it cannot be mapped
}

TEST_F(LinkTest, ThereAreNoRingsWhereThereIsNoRoomForThem) {
  const auto expect_none = [&](const char* why) {
    coordinator_->offer();
    EXPECT_FALSE(coordinator_->has_rings()) << why;
  };
  {
    const execnet::testing::NoDescriptors none;
    expect_none("descriptors");
  }
  {
    const execnet::testing::Limit files(RLIMIT_FSIZE, 4096);
    expect_none("ulimit -f");
  }
  if (!execnet::testing::is_sanitized()) {
    const execnet::testing::MemoryBound memory(1);
    expect_none("address space");
  }
  EXPECT_EQ(write(*coordinator_, "hello"), 5U);
  EXPECT_EQ(read(*worker_), "hello");
  EXPECT_FALSE(worker_->has_rings());
}

TEST_F(LinkTest, MemoryThatCouldShrinkOrHasAnotherSizeIsRefused) {
  for (const off_t size : {off_t{4096}, off_t{4096} + (off_t{2} << 20)}) {
    for (const bool sealed : {false, true}) {
      auto [ours, theirs] = base::socket_pair();
      Link worker(std::move(theirs));
      worker.expect_offer();
      const base::Fd memory(::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
      ASSERT_EQ(::ftruncate(memory.get(), size), 0);
      if (sealed) {
        ASSERT_EQ(::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
      }
      send_with(ours.get(), memory.get());
      EXPECT_EQ(read(worker), "x");
      EXPECT_EQ(worker.has_rings(), sealed && size > 4096) << size << sealed;
    }
  }
}

TEST_F(LinkTest, NothingIsOfferedWhereThereIsNoMemoryForIt) {
  const auto offers = [](const std::function<void()>& when) {
    return execnet::testing::elsewhere([&] {
      when();
      auto [ours, theirs] = base::socket_pair();
      Link coordinator(std::move(ours));
      coordinator.offer();
      return std::string(coordinator.has_rings() ? "offers" : "does not");
    });
  };
  EXPECT_EQ(offers([] {}), "offers");
  EXPECT_EQ(offers([] {
              const rlimit limit{4096, 4096};
              base::check("setrlimit", [&] { return ::setrlimit(RLIMIT_FSIZE, &limit); });
            }),
            "does not");
  EXPECT_EQ(offers([] { execnet::testing::refuse_system_call(SYS_memfd_create, EPERM); }), "does not");
}

TEST_F(LinkTest, AWriteForWhichThereIsNoMemoryIsForLaterAndAnyOtherErrorEndsTheStream) {
  const auto after = [](int error) {
    return execnet::testing::elsewhere([&] {
      auto [ours, theirs] = base::socket_pair();
      Link link(std::move(ours));
      execnet::testing::refuse_system_call(SYS_sendmsg, error);
      const std::string text = "x";
      const iovec part{const_cast<char*>(text.data()), text.size()};
      const ssize_t count = link.write(std::span(&part, 1));
      char byte;
      const bool ended = ::recv(link.fd(), &byte, 1, MSG_DONTWAIT) == 0;
      return std::to_string(count) + (ended ? ", ended" : "");
    });
  };
  for (const int error : {ENOBUFS, ENOMEM, ETOOMANYREFS}) {
    EXPECT_EQ(after(error), "0") << error;
  }
  EXPECT_EQ(after(EPERM), "-1, ended");
}

TEST_F(LinkTest, ADescriptorThatIsNotExpectedIsNotTaken) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const base::Fd in(ends[0]);
  base::Fd out(ends[1]);
  send_with(worker_->fd(), out.get());
  out.reset();
  EXPECT_EQ(read(*coordinator_), "x");
  pollfd end{in.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&end, 1, 0), 1);  // the other end of it is closed
  EXPECT_NE(end.revents & POLLHUP, 0);
}

}  // namespace
}  // namespace execnet::core
