#include "worker_process.hpp"

#include <fcntl.h>
#include <nanobind/stl/string.h>
#include <pthread.h>
#include <unistd.h>

#include <cstdint>
#include <utility>

#include "base/fd.hpp"
#include "base/syscall.hpp"
#include "bindings.hpp"
#include "gil.hpp"
#include "imports.hpp"
#include "text.hpp"
#include "worker_exec.hpp"

namespace execnet::python {
namespace {

std::string working_directory() {
  try {
    return portable(import_installed("os").attr("getcwd")());
  } catch (const nb::python_error&) {
    return "";  // it was removed
  }
}

}  // namespace

WorkerProcess::~WorkerProcess() {
  if (end) {
    end->stop();
  }
}

void WorkerProcess::open(int stream_fd) {
  base::check("fcntl", [&] { return ::fcntl(stream_fd, F_SETFD, FD_CLOEXEC); }, "F_SETFD");
  main_thread_ = pthread_self();
  end = core::WorkerEnd::open(base::Fd(stream_fd), [this](const core::WorkerEnd::Task& task) {
    begin_task();
    return run_task(task, gateway);
  });
  end->connection()->set_thread_scope([](const std::function<void()>& body) {
    worker_process().has_run_code.wait(false);  // before that, a forked interpreter must not be touched
    with_thread_state(body);
  });
}

// Up to Python 3.12 the thread that first imports `threading` is taken for the main one. It takes a third of the time
// that an interpreter takes to start, so it is not done before code wants to run: the first task is the main thread's.
void WorkerProcess::begin_task() {
  if (!has_run_code && pthread_equal(pthread_self(), main_thread_) != 0) {
#if PY_VERSION_HEX < 0x030D0000
    const WithGil gil;
    try {
      import_installed("threading");
    } catch (const nb::python_error&) {
      // What wants it will say so.
    }
#endif
    has_run_code = true;
    has_run_code.notify_all();
  }
  has_run_code.wait(false);
}

WorkerProcess& worker_process() {
  static WorkerProcess process;
  return process;
}

void make_package_importable(nb::handle module) {
  const nb::object path = import_installed("os").attr("path");
  const nb::object dirname = path.attr("dirname");
  const nb::object root = dirname(dirname(path.attr("abspath")(module.attr("__spec__").attr("origin"))));
  const nb::object sys_path = nb::module_::import_("sys").attr("path");
  if (!nb::cast<bool>(sys_path.attr("__contains__")(root))) {
    const bool first = nb::len(sys_path) > 0 && sys_path[0].equal(nb::str(""));
    sys_path.attr("insert")(first ? 1 : nb::len(sys_path), root);  // the working directory, if it is there, stays first
  }
}

// Code that enables faulthandler for itself, as pytest does, gets what it wants instead.
int report_crashes() {
  const nb::object faulthandler = import_installed("faulthandler");
  if (nb::cast<bool>(faulthandler.attr("is_enabled")())) {
    return -1;
  }
  const int report = base::check("fcntl", [] { return ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3); }, "F_DUPFD_CLOEXEC");
  faulthandler.attr("enable")(nb::arg("file") = report, nb::arg("all_threads") = false);
  return report;
}

core::WorkerInfo introduce() {
  const nb::object sys = nb::module_::import_("sys");
  core::WorkerInfo info;
  for (const nb::handle part : sys.attr("version_info")) {
    info.version_info.push_back(nb::isinstance<nb::str>(part) ? Value(nb::cast<std::string>(part))
                                                              : Value(nb::cast<std::int64_t>(part)));
  }
  info.executable = portable(sys.attr("executable"));
  info.platform = portable(sys.attr("platform"));
  info.cwd = working_directory();
  return info;
}

void take_streams(const core::StandardStreams& wanted, int stderr_fd) {
  {
    const base::Fd inherited(stderr_fd);
    base::check("dup2", [&] { return ::dup2(inherited.get(), STDERR_FILENO); });
  }
  wanted.apply();
}

}  // namespace execnet::python
