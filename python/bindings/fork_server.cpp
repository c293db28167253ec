// What a fork server (worker/fork_server.py) that forks native workers does to its interpreter: that rests while
// core::ForkRequests answers the coordinator's requests.
//
// Each page that the interpreter writes to after a fork, if only to count a reference, is copied, in the fork
// server as in the worker: some 300 in a worker that starts as a fresh one does, which costs more than the fork itself.
// So nothing of the interpreter is touched here, nor in a worker until there is something to run. Up to then a worker
// is some C++ that waits, and answers what needs no Python; what PyOS_AfterFork_Child() does for the interpreter is
// done late, when it is first wanted. What PyOS_BeforeFork() does before each fork holds until it is undone, and so is
// done once for all requests that are there already.
#include <fcntl.h>
#include <nanobind/nanobind.h>
#include <unistd.h>

#include <exception>
#include <optional>
#include <string>
#include <utility>

#include "base/syscall.hpp"
#include "bindings.hpp"
#include "gateway/fork_requests.hpp"
#include "gil.hpp"
#include "text.hpp"
#include "transport/transport.hpp"
#include "worker_process.hpp"

namespace execnet::python {
namespace {

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

// Up to where it needs its interpreter. If it never does, it ends here.
void rest() {
  WorkerProcess& worker = worker_process();
  worker.open(transport::kStreamFd);
  if (prepared()->crash_report >= 0) {
    worker.end->complain_to(prepared()->crash_report);
  }
  const auto take_streams = [&worker](const core::WorkerSetup& setup) {
    python::take_streams(setup.streams, transport::kStderrFd);
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

void become_worker(const core::ForkDescriptors& passed) {
  try {
    core::take(passed);
    if (const int report = prepared()->crash_report; report >= 0) {
      base::check("dup3", [&] { return ::dup3(STDERR_FILENO, report, O_CLOEXEC); });
    }
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

// Threads that Python knows of have a state, from before they run until after they have.
bool has_threads() {
  PyThreadState* const first = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
  return PyThreadState_Next(first) != nullptr;
}

class RestingInterpreter final : public core::Forkable {
 public:
  explicit RestingInterpreter(nb::callable why_not_to_fork) : why_not_to_fork_(std::move(why_not_to_fork)) {}

  // Nothing, mostly.
  std::string why_not_to_fork() override {
    if (!has_threads()) {
      return "";
    }
    stillness_.end();
    const nb::object why = why_not_to_fork_();
    return why.is_none() ? "" : portable(why);
  }
  void be_still() override { stillness_.begin(); }
  void rest(bool is_there) override {
    const bool others_run = has_threads();
    if (others_run || !is_there) {
      stillness_.end();
    }
    if (others_run) {
      others_run_.emplace();
    }
  }
  void go_on() override { others_run_.reset(); }
  void was_forked() { stillness_.was_inherited(); }

 private:
  const nb::callable why_not_to_fork_;
  Stillness stillness_;
  std::optional<WithoutGil> others_run_;
};

nb::object answer_requests(int control, nb::callable why_not_to_fork) {
  RestingInterpreter interpreter(std::move(why_not_to_fork));
  core::ForkRequests requests(control, interpreter);
  if (const auto descriptors = requests.answer()) {
    interpreter.was_forked();
    become_worker(*descriptors);
    return nb::none();
  }
  nb::list pids;
  for (const pid_t pid : requests.workers()) {
    pids.append(pid);
  }
  return pids;
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
