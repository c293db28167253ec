// The part of a fork server (worker/fork_server.py) that runs while its interpreter rests: it answers the coordinator's
// requests, and forks native workers.
//
// Each page that the interpreter writes to after a fork, if only to count a reference, is copied, in the fork
// server as in the worker: some 300 in a worker that starts as a fresh one does, which costs more than the fork itself.
// So nothing of the interpreter is touched here, nor in a worker until there is something to run. Up to then a worker
// is some C++ that waits, and answers what needs no Python; what PyOS_AfterFork_Child() does for the interpreter is
// done late, when it is first wanted. What PyOS_BeforeFork() does before each fork holds until it is undone, and so is
// done once for all requests that are there already.
#include <fcntl.h>
#include <nanobind/nanobind.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/heap_holes.hpp"
#include "base/syscall.hpp"
#include "bindings.hpp"
#include "gateway/fork_protocol.hpp"
#include "gil.hpp"
#include "process/pidfd.hpp"
#include "text.hpp"
#include "transport/transport.hpp"
#include "worker_process.hpp"

namespace execnet::python {
namespace {

using core::ForkAnswerKind;
using core::ForkRequestKind;

// What all workers of this process say and do, found out before the first is forked.
struct Prepared {
  core::WorkerInfo info;
  int crash_report = -1;           // as report_crashes() returns it
  bool has_exit_handlers = false;  // of atexit, which are to run in each worker
};
std::optional<Prepared>& prepared() {
  static std::optional<Prepared> prepared;
  return prepared;
}

void prepare_to_fork(nb::handle module, bool has_exit_handlers) {
  make_package_importable(module);
  prepared() = {introduce(), report_crashes(), has_exit_handlers};
  worker_process();  // it is made once, not in each worker
}

// --- A worker ----------------------------------------------------------------------------------------

// Its descriptors, in the order in which they come. All have higher numbers than those they get.
using Descriptors = std::array<int, core::kForkDescriptors>;

void take(int from, int to, int flags = 0) {
  base::check("dup3", [&] { return ::dup3(from, to, flags); });
}

void take(const Descriptors& passed) {
  constexpr Descriptors kNumbers{transport::kStreamFd, STDERR_FILENO, STDOUT_FILENO, transport::kStderrFd};
  for (std::size_t i = 0; i < passed.size(); ++i) {
    take(passed[i], kNumbers[i]);
    ::close(passed[i]);
  }
  if (prepared()->crash_report >= 0) {
    take(STDERR_FILENO, prepared()->crash_report, O_CLOEXEC);
  }
}

// Up to where it needs its interpreter. If it never does, it ends here.
void rest() {
  WorkerProcess& worker = worker_process();
  worker.open(transport::kStreamFd);
  if (prepared()->crash_report >= 0) {
    worker.end->complain_to(prepared()->crash_report);
  }
  const auto take_streams = [&worker](const core::WorkerSetup& setup) {
    if (setup.null_stdout) {
      throw_stdout_away();
    }
    take_stderr(transport::kStderrFd);
    worker.serves = true;
  };
  if (worker.end->rest(prepared()->info, take_streams) == core::WorkerEnd::Wanted::kForNothing) {
    if (!prepared()->has_exit_handlers) {
      worker.end->stop();
      ::_exit(worker.serves ? 0 : 1);
    }
    worker.end->end_in_time();
  }
}

void become_worker(const Descriptors& passed) {
  try {
    take(passed);
    rest();
  } catch (const std::exception& error) {
    const int its_stderr = ::fcntl(passed[1], F_GETFD) >= 0 ? passed[1] : STDERR_FILENO;  // until it is taken
    ::dprintf(its_stderr, "execnet worker: %s\n", error.what());
    ::_exit(1);
  }
  PyOS_AfterFork_Child();
}

// --- The fork server ---------------------------------------------------------------------------------

// Whether the interpreter is as a fork wants it: its locks held, and what its modules do before a fork done.
class Stillness {
 public:
  ~Stillness() { end(); }
  Stillness() = default;
  Stillness(const Stillness&) = delete;
  Stillness& operator=(const Stillness&) = delete;

  void begin() {
    if (!std::exchange(still_, true)) {
      PyOS_BeforeFork();
    }
  }
  // Before the interpreter runs anything, or another thread may.
  void end() {
    if (std::exchange(still_, false)) {
      PyOS_AfterFork_Parent();
    }
  }
  // In a forked worker, for which the interpreter does it otherwise.
  void was_inherited() { still_ = false; }

 private:
  bool still_ = false;
};

class Requests {
 public:
  Requests(int control, nb::callable why_not_to_fork)
      : control_(control), why_not_to_fork_(std::move(why_not_to_fork)) {}

  // Until there are no more: false. Or, in a worker whose interpreter is wanted: true.
  bool answer() {
    core::ForkRequest request{};
    base::fill_heap_holes();
    if (!say(ForkAnswerKind::kReady, 0, 0, process::pid_namespace())) {
      return false;
    }
    for (;;) {
      Descriptors passed;
      passed.fill(-1);
      if (!receive(request, passed)) {
        return false;
      }
      if (request.kind != ForkRequestKind::kFork) {
        const bool kill = request.kind == ForkRequestKind::kKill;
        if (!say(ForkAnswerKind::kEnded, request.number, collect(request.number, kill))) {
          return false;
        }
        continue;
      }
      // The kernel drops those for which it finds no room in this process.
      std::string refusal = passed.back() < 0 ? "it has no descriptors left" : why_not_to_fork();
      const pid_t pid = refusal.empty() ? fork(refusal) : -1;
      if (pid == 0) {
        stillness_.was_inherited();
        become_worker(passed);
        return true;
      }
      std::for_each(passed.begin(), passed.end(), [](int fd) { base::Fd{fd}.reset(); });
      if (pid > 0) {
        workers_.push_back({request.number, pid});
      }
      const auto kind = pid > 0 ? ForkAnswerKind::kForked : ForkAnswerKind::kRefused;
      if (!say(kind, request.number, std::max(pid, 0), refusal)) {
        return false;
      }
    }
  }

  [[nodiscard]] nb::list workers() const {
    nb::list pids;
    for (const Worker& worker : workers_) {
      pids.append(worker.pid);
    }
    return pids;
  }

 private:
  // False when there are no more.
  bool receive(core::ForkRequest& request, Descriptors& passed) {
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

  ssize_t receive(msghdr& message) {
    for (;;) {
      pollfd more{control_, POLLIN, 0};
      if (has_threads() || ::poll(&more, 1, 0) == 0) {
        stillness_.end();
      }
      ssize_t size = 0;
      if (has_threads()) {
        const WithoutGil nogil;
        size = ::recvmsg(control_, &message, MSG_CMSG_CLOEXEC);
      } else {
        size = ::recvmsg(control_, &message, MSG_CMSG_CLOEXEC);
      }
      if (size >= 0 || errno != EINTR) {
        return size;
      }
    }
  }

  // False when nobody hears it.
  [[nodiscard]] bool say(ForkAnswerKind kind, std::uint32_t number, std::int32_t value,
                         std::string_view text = "") const {
    text = text.substr(0, core::kMostForkText);
    const core::ForkAnswer header{kind, number, value, static_cast<std::uint32_t>(text.size())};
    std::array<char, sizeof header + core::kMostForkText> answer;
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

  // Threads that Python knows of have a state, from before they run until after they have.
  static bool has_threads() {
    PyThreadState* const first = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    return PyThreadState_Next(first) != nullptr;
  }

  // Nothing, mostly.
  std::string why_not_to_fork() {
    if (!has_threads()) {
      return "";
    }
    stillness_.end();
    const nb::object why = why_not_to_fork_();
    return why.is_none() ? "" : portable(why);
  }

  pid_t fork(std::string& refusal) {
    stillness_.begin();
    const pid_t pid = ::fork();
    if (pid < 0) {
      refusal = std::string("it cannot fork: ") + std::strerror(errno);
    }
    return pid;
  }

  std::int32_t collect(std::uint32_t number, bool kill) {
    const auto found =
        std::lower_bound(workers_.begin(), workers_.end(), number,
                         [](const Worker& worker, std::uint32_t wanted) { return worker.number < wanted; });
    int status = 0;
    if (found == workers_.end() || found->number != number) {
      return -1;
    }
    if (kill) {
      ::kill(found->pid, SIGKILL);
    }
    const bool known = ::waitpid(found->pid, &status, kill ? 0 : WNOHANG) > 0;
    workers_.erase(found);
    return known ? status : -1;
  }

  // In one piece, so that as few pages as can be are written to after each fork.
  struct Worker {
    std::uint32_t number;  // of its request
    pid_t pid;
  };

  const int control_;
  const nb::callable why_not_to_fork_;
  Stillness stillness_;
  std::vector<Worker> workers_;  // until they are collected; in order
};

nb::object answer_requests(int control, nb::callable why_not_to_fork) {
  Requests requests(control, std::move(why_not_to_fork));
  return requests.answer() ? nb::none() : nb::object(requests.workers());
}

}  // namespace

void bind_fork_server(nb::module_& module) {
  module.def(
      "prepare_to_fork",
      [module = nb::handle(module)](bool has_exit_handlers) { prepare_to_fork(module, has_exit_handlers); },
      nb::arg("has_exit_handlers"),
      "For a fork server, once before answer_requests(), while descriptor 2 is what a worker's stderr is until it\n"
      "serves. A worker that has run nothing ends at once if there are no exit handlers.");
  module.def("answer_requests", &answer_requests, nb::arg("control"), nb::arg("why_not_to_fork"),
             nb::sig("def answer_requests(control: int, why_not_to_fork: collections.abc.Callable[[], str | None]) -> "
                     "list[int] | None"),
             "For a fork server: forks a worker for each request that comes on the socket `control`. Returns the pids\n"
             "of those there are when no more will come; and, in a worker, None when there is something to do for its\n"
             "interpreter, with which serve() goes on.");
}

}  // namespace execnet::python
