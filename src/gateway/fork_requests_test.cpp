// The conversation of tests/vectors/forks.txt, with a fork server that has no interpreter. worker/fork_server_test.py
// has it with the one in Python.
#include "gateway/fork_requests.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bit>
#include <cstring>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/syscall.hpp"
#include "process/pidfd.hpp"
#include "transport/transport.hpp"
#include "vectors.hpp"

namespace execnet::core {
namespace {

constexpr int kPatienceMs = 30'000;

struct Row {
  std::string name;
  std::string who;
  std::string bytes;
  std::uint32_t kind = 0;
  std::uint32_t number = 0;
  std::int32_t value = 0;
  std::string text;
};

std::vector<Row> conversation() {
  std::vector<Row> rows;
  for (const auto& columns : testing::rows("forks.txt")) {
    Row row{.name = columns.at(0), .who = columns.at(1), .bytes = testing::from_hex(columns.at(2)), .text = {}};
    std::istringstream fields(columns.at(3));
    if (row.who == "end") {
      fields >> row.number;
    } else {
      fields >> row.kind >> row.number >> row.value >> std::ws;
      std::getline(fields, row.text);
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string bytes_of(const Row& row) {
  if (row.who != "answer") {
    const ForkRequest request{static_cast<ForkRequestKind>(row.kind), row.number};
    return {reinterpret_cast<const char*>(&request), sizeof request};
  }
  const ForkAnswer answer{static_cast<ForkAnswerKind>(row.kind), row.number, row.value,
                          static_cast<std::uint32_t>(row.text.size())};
  return std::string(reinterpret_cast<const char*>(&answer), sizeof answer) + row.text;
}

TEST(ForkProtocol, HasTheGoldenBytes) {
  if constexpr (std::endian::native != std::endian::little) {
    GTEST_SKIP() << "the bytes are those of a little-endian machine";
  }
  for (const Row& row : conversation()) {
    if (row.who != "end") {
      EXPECT_EQ(bytes_of(row), row.bytes) << row.name << " " << row.number;
    }
  }
}

// What a fork means to a program that has nothing else to do.
class Plain : public Forkable {
 public:
  std::string why_not_to_fork() override { return why_; }
  void be_still() override { still_ = true; }
  void rest(bool is_there) override { still_ = still_ && is_there; }
  void go_on() override {}

  std::string why_;
  bool still_ = false;
};

// Has the process of a fork server, whose workers end with 3 when their stream does.
class ForkRequestsTest : public ::testing::Test {
 protected:
  void start(const std::string& why_not = "") {
    auto [ours, theirs] = base::socket_pair();
    pid_ = base::check("fork", [] { return ::fork(); });
    if (pid_ == 0) {
      ours.reset();
      run(theirs.get(), why_not);
    }
    control_ = std::move(ours);
  }
  ~ForkRequestsTest() override {
    control_.reset();
    int status = 0;
    EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
    EXPECT_EQ(status, 0);
  }

  [[noreturn]] static void run(int control, const std::string& why_not) {
    while (::dup(control) <= transport::kStderrFd) {
      // What comes is to have higher numbers.
    }
    Plain plain;
    plain.why_ = why_not;
    ForkRequests requests(control, plain);
    const auto descriptors = requests.answer();
    if (!descriptors) {
      ::_exit(0);
    }
    if (!plain.still_) {
      ::_exit(4);
    }
    take(*descriptors);
    char byte = 0;
    ::_exit(::read(transport::kStreamFd, &byte, 1) == 0 ? 3 : 5);
  }

  void ask(const Row& row) {
    ForkDescriptors passed;
    passed.fill(STDERR_FILENO);
    base::Fd theirs;
    if (row.kind == 1 && row.who == "request") {
      auto [ours, other] = base::socket_pair();
      theirs = std::move(other);
      passed[0] = theirs.get();
      streams_[row.number] = std::move(ours);
    }
    std::string bytes = bytes_of(row);
    iovec part{bytes.data(), bytes.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof passed)> ancillary{};
    if (theirs) {
      message.msg_control = ancillary.data();
      message.msg_controllen = ancillary.size();
      cmsghdr* rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(sizeof passed);
      std::memcpy(CMSG_DATA(rights), passed.data(), sizeof passed);
    }
    ASSERT_EQ(::sendmsg(control_.get(), &message, MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }

  std::string read(std::size_t size) {
    std::string bytes(size, '\0');
    for (std::size_t got = 0; got < size;) {
      pollfd entry{control_.get(), POLLIN, 0};
      if (::poll(&entry, 1, kPatienceMs) != 1) {
        return "nothing";
      }
      const ssize_t more = ::read(control_.get(), bytes.data() + got, size - got);
      if (more <= 0) {
        return "its end";
      }
      got += static_cast<std::size_t>(more);
    }
    return bytes;
  }

  Row hear() {
    ForkAnswer header{};
    const std::string bytes = read(sizeof header);
    if (bytes.size() != sizeof header) {
      return {.name = {}, .who = bytes, .bytes = {}, .text = {}};
    }
    std::memcpy(&header, bytes.data(), sizeof header);
    return {.name = {},
            .who = "answer",
            .bytes = {},
            .kind = static_cast<std::uint32_t>(header.kind),
            .number = header.number,
            .value = header.value,
            .text = header.length > 0 ? read(header.length) : ""};
  }

  void end(std::uint32_t number) {
    const base::Fd pidfd = process::pidfd_open(pids_.at(number));
    ::shutdown(streams_.at(number).get(), SHUT_RDWR);
    pollfd entry{pidfd.get(), POLLIN, 0};
    if (pidfd) {  // else it has been collected already
      EXPECT_EQ(::poll(&entry, 1, kPatienceMs), 1);
    }
  }

  pid_t pid_ = -1;
  base::Fd control_;
  std::map<std::uint32_t, base::Fd> streams_;
  std::map<std::uint32_t, pid_t> pids_;
};

TEST_F(ForkRequestsTest, AreAnsweredAsTheGoldenConversationHasIt) {
  start();
  for (Row wanted : conversation()) {
    SCOPED_TRACE(wanted.name + " " + std::to_string(wanted.number));
    if (wanted.who == "end") {
      end(wanted.number);
    } else if (wanted.who != "answer") {
      ask(wanted);
    } else {
      const Row said = hear();
      if (said.kind == static_cast<std::uint32_t>(ForkAnswerKind::kForked)) {
        pids_[said.number] = wanted.value = said.value;
        EXPECT_GT(said.value, 0);
      } else if (said.kind == static_cast<std::uint32_t>(ForkAnswerKind::kReady)) {
        wanted.text = process::pid_namespace();
      }
      ASSERT_EQ(said.who, "answer");
      ASSERT_EQ(bytes_of(said), bytes_of(wanted));
    }
  }
}

TEST_F(ForkRequestsTest, AreRefusedWhenTheProcessCannotBeForked) {
  start("it is busy");
  EXPECT_EQ(hear().kind, static_cast<std::uint32_t>(ForkAnswerKind::kReady));
  ask({.name = {}, .who = "request", .bytes = {}, .kind = 1, .number = 1, .text = {}});
  const Row said = hear();
  EXPECT_EQ(said.kind, static_cast<std::uint32_t>(ForkAnswerKind::kRefused));
  EXPECT_EQ(said.text, "it is busy");
}

TEST_F(ForkRequestsTest, MayComeInPieces) {
  start();
  EXPECT_EQ(hear().kind, static_cast<std::uint32_t>(ForkAnswerKind::kReady));
  const std::string bytes = bytes_of({.name = {}, .who = "bare", .bytes = {}, .kind = 2, .number = 77, .text = {}});
  for (const char byte : bytes) {
    ASSERT_EQ(::write(control_.get(), &byte, 1), 1);
  }
  const Row said = hear();
  EXPECT_EQ(said.number, 77U);
  EXPECT_EQ(said.value, -1);
}

TEST_F(ForkRequestsTest, EndWithTheCoordinator) {
  start();
  control_.reset();  // the rest is in the destructor
}

}  // namespace
}  // namespace execnet::core
