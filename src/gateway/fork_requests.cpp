#include "gateway/fork_requests.hpp"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/fd.hpp"
#include "base/heap_holes.hpp"
#include "base/syscall.hpp"
#include "process/pidfd.hpp"
#include "transport/transport.hpp"

namespace execnet::core {
namespace {

constexpr int kLook = 50;  // milliseconds, between two looks at workers that are watched here

// Whether a child has not ended. One that somebody else has collected has.
bool runs(pid_t child) {
  siginfo_t end{};
  return ::waitid(P_PID, static_cast<id_t>(child), &end, WEXITED | WNOHANG | WNOWAIT) == 0 && end.si_pid == 0;
}

}  // namespace

void take(const ForkDescriptors& passed) {
  constexpr ForkDescriptors kNumbers{transport::kStreamFd, STDERR_FILENO, STDOUT_FILENO, transport::kStderrFd};
  for (std::size_t i = 0; i < passed.size(); ++i) {
    base::check("dup3", [&] { return ::dup3(passed[i], kNumbers[i], 0); });
    ::close(passed[i]);
  }
}

std::optional<ForkDescriptors> ForkRequests::answer() {
  ForkRequest request{};
  base::fill_heap_holes();
  if (!say(ForkAnswerKind::kReady, 0, 0, process::pid_namespace())) {
    return std::nullopt;
  }
  for (;;) {
    ForkDescriptors passed;
    passed.fill(-1);
    if (!receive(request, passed)) {
      return std::nullopt;
    }
    if (request.kind == ForkRequestKind::kWatch) {
      watched_.push_back(request.number);
      continue;
    }
    if (request.kind != ForkRequestKind::kFork) {
      const bool kill = request.kind == ForkRequestKind::kKill;
      if (!say(ForkAnswerKind::kEnded, request.number, collect(request.number, kill))) {
        return std::nullopt;
      }
      continue;
    }
    // The kernel drops those for which it finds no room in this process.
    std::string refusal = passed.back() < 0 ? "it has no descriptors left" : process_.why_not_to_fork();
    pid_t pid = -1;
    if (refusal.empty()) {
      process_.be_still();
      pid = ::fork();
      if (pid == 0) {
        return passed;
      }
      if (pid < 0) {
        refusal = std::string("it cannot fork: ") + std::strerror(errno);
      }
    }
    std::for_each(passed.begin(), passed.end(), [](int fd) { base::Fd{fd}.reset(); });
    if (pid > 0) {
      workers_.push_back({request.number, pid});
    }
    const auto kind = pid > 0 ? ForkAnswerKind::kForked : ForkAnswerKind::kRefused;
    if (!say(kind, request.number, std::max(pid, 0), refusal)) {
      return std::nullopt;
    }
  }
}

std::vector<pid_t> ForkRequests::workers() const {
  std::vector<pid_t> pids;
  pids.reserve(workers_.size());
  for (const Worker& worker : workers_) {
    pids.push_back(worker.pid);
  }
  return pids;
}

bool ForkRequests::receive(ForkRequest& request, ForkDescriptors& passed) {
  char* at = reinterpret_cast<char*>(&request);
  for (std::size_t left = sizeof request; left > 0;) {
    iovec part{at, left};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof passed)> control{};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t size = receive(message);
    if (size <= 0) {
      return false;
    }
    const cmsghdr* rights = CMSG_FIRSTHDR(&message);
    if (rights != nullptr && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
      std::memcpy(passed.data(), CMSG_DATA(rights), std::min(sizeof passed, rights->cmsg_len - CMSG_LEN(0)));
    }
    at += size;
    left -= static_cast<std::size_t>(size);
  }
  return true;
}

ssize_t ForkRequests::receive(msghdr& message) {
  for (;;) {
    pollfd more{control_, POLLIN, 0};
    process_.rest(::poll(&more, 1, 0) != 0);
    ssize_t size = -1;
    int error = EINTR;
    if (watched_.empty() || ::poll(&more, 1, kLook) != 0) {
      size = ::recvmsg(control_, &message, MSG_CMSG_CLOEXEC);
      error = errno;
    }
    process_.go_on();
    if (size >= 0 || error != EINTR || !tell_of_ends()) {
      return size;
    }
  }
}

bool ForkRequests::say(ForkAnswerKind kind, std::uint32_t number, std::int32_t value, std::string_view text) const {
  text = text.substr(0, kMostForkText);
  const ForkAnswer header{kind, number, value, static_cast<std::uint32_t>(text.size())};
  std::array<char, sizeof header + kMostForkText> answer;
  std::memcpy(answer.data(), &header, sizeof header);
  text.copy(answer.data() + sizeof header, text.size());
  std::string_view left(answer.data(), sizeof header + text.size());
  while (!left.empty()) {
    const ssize_t size = ::send(control_, left.data(), left.size(), MSG_NOSIGNAL);
    if (size < 0 && errno != EINTR) {
      return false;
    }
    left.remove_prefix(static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
  }
  return true;
}

// Of the workers that are watched here.
bool ForkRequests::tell_of_ends() {
  for (std::size_t i = watched_.size(); i-- > 0;) {
    const std::uint32_t number = watched_[i];
    const auto worker = find(number);
    const bool is_left = worker != workers_.end();
    if (is_left && runs(worker->pid)) {
      continue;
    }
    watched_.erase(watched_.begin() + static_cast<std::ptrdiff_t>(i));
    if (is_left && !say(ForkAnswerKind::kGone, number, collect(number, false))) {
      return false;
    }
  }
  return true;
}

ForkRequests::Workers::iterator ForkRequests::find(std::uint32_t number) {
  const auto found =
      std::lower_bound(workers_.begin(), workers_.end(), number,
                       [](const Worker& worker, std::uint32_t wanted) { return worker.number < wanted; });
  return found != workers_.end() && found->number == number ? found : workers_.end();
}

std::int32_t ForkRequests::collect(std::uint32_t number, bool kill) {
  const auto found = find(number);
  int status = 0;
  if (found == workers_.end()) {
    return -1;
  }
  if (kill) {
    ::kill(found->pid, SIGKILL);
  }
  const bool known = ::waitpid(found->pid, &status, kill ? 0 : WNOHANG) > 0;
  workers_.erase(found);
  return known ? status : -1;
}

}  // namespace execnet::core
