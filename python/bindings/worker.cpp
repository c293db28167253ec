// The native worker: what the one line on the command line of a plain popen gateway's interpreter calls.
#include <fcntl.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <pthread.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "base/fd.hpp"
#include "base/syscall.hpp"
#include "bindings.hpp"
#include "channel.hpp"
#include "core/value_message.hpp"
#include "core/worker_end.hpp"
#include "green.hpp"
#include "interrupt.hpp"
#include "text.hpp"
#include "worker_exec.hpp"

namespace execnet::python {
namespace {

// The gateway as the code that runs here sees it: `channel.gateway`.
struct WorkerGateway {
  std::shared_ptr<core::WorkerEnd> end;
};

nb::object newchannel(nb::handle_t<WorkerGateway> self) {
  core::Connection& connection = *nb::cast<const WorkerGateway&>(self).end->connection();
  std::shared_ptr<core::ChannelHandle> channel;
  {
    auto lock = connection.lock();
    channel = connection.new_channel(lock);
  }
  return make_channel(std::move(channel), self);
}

nb::object execmodel(const WorkerGateway& self) {
  return nb::module_::import_("execnet._execmodel").attr("get_execmodel")(self.end->execmodel());
}

void reconfigure(const WorkerGateway& self, bool py2str_as_py3str, bool py3str_as_py2str) {
  core::Connection& connection = *self.end->connection();
  base::Buffer payload = core::encode_value(Value(Tuple{py2str_as_py3str, py3str_as_py2str}));
  auto lock = connection.lock();
  connection.set_strings(lock, {py2str_as_py3str, py3str_as_py2str});
  connection.post(lock, wire::FrameType::kReconfigure, 0, std::move(payload));
}

// Makes the process what the specification wants. What is wrong with it, if anything.
std::optional<std::string> set_up(const core::WorkerSetup& setup, core::Connection& connection) {
  const nb::object os = nb::module_::import_("os");
  const nb::object sys = nb::module_::import_("sys");
  std::string step;
  try {
    if (setup.chdir) {
      step = "chdir=" + *setup.chdir;
      const nb::object path = os.attr("path").attr("expanduser")(*setup.chdir);
      os.attr("makedirs")(path, nb::arg("exist_ok") = true);
      os.attr("chdir")(path);
    }
    if (setup.nice) {
      step = "nice=" + std::to_string(*setup.nice);
      os.attr("nice")(*setup.nice);
    }
    for (const auto& [name, value] : setup.env) {
      step = "env:" + name + "=" + value;
      os.attr("environ")[name.c_str()] = value;
    }
    step = "execmodel=" + setup.execmodel;
    if (setup.in_greenlets()) {
      connection.set_hub(hub_of(setup.execmodel));
    } else if (setup.execmodel != "thread" && setup.execmodel != "main_thread_only") {
      return step + ": there are thread, main_thread_only, gevent and eventlet";
    }
  } catch (const nb::python_error& error) {
    std::string wrong = step + ": " + portable(error.type().attr("__name__")) + ": " + portable(error.value());
    if (error.matches(PyExc_ImportError)) {
      wrong += ": install " + setup.execmodel + " for " + portable(sys.attr("executable"));
    }
    return wrong;
  }
  if (setup.null_stdout) {
    const base::Fd null(base::check("open", [] { return ::open("/dev/null", O_WRONLY | O_CLOEXEC); }, "/dev/null"));
    base::check("dup2", [&] { return ::dup2(null.get(), STDOUT_FILENO); });
  }
  if (setup.dont_write_bytecode) {
    sys.attr("dont_write_bytecode") = true;
  }
  return std::nullopt;
}

// `import execnet` is to find the package that this module is of.
void make_package_importable(nb::handle module) {
  const nb::object path = nb::module_::import_("os").attr("path");
  const nb::object dirname = path.attr("dirname");
  const nb::object root = dirname(dirname(path.attr("abspath")(module.attr("__spec__").attr("origin"))));
  const nb::object sys_path = nb::module_::import_("sys").attr("path");
  if (!nb::cast<bool>(sys_path.attr("__contains__")(root))) {
    sys_path.attr("insert")(1, root);  // "" stays the first
  }
}

std::string working_directory() {
  try {
    return portable(nb::module_::import_("os").attr("getcwd")());
  } catch (const nb::python_error&) {
    return "";  // it was removed
  }
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

// Lives until the process is past the interpreter's finalisation, which its timers cut short if it
// hangs; only then, with the statics, the loop thread is stopped and joined.
struct Worker {
  std::shared_ptr<core::WorkerEnd> end;

  ~Worker() {
    if (end) {
      end->stop();
    }
  }
};

Worker& worker() {
  static Worker worker;
  return worker;
}

[[noreturn]] void exit_with(int status) {
  PyErr_SetObject(PyExc_SystemExit, nb::int_(status).ptr());
  throw nb::python_error();
}

// The next task as a function to be called in a greenlet; None: there are no more.
nb::object next_task(const std::shared_ptr<core::WorkerEnd>& end) {
  const base::Wait wait = wait_for(*end->connection());
  std::optional<core::WorkerEnd::Task> task;
  {
    const nb::gil_scoped_release nogil;
    task = end->next_task(wait);
  }
  if (!task) {
    return nb::none();
  }
  return nb::cpp_function([end, task = std::make_shared<core::WorkerEnd::Task>(std::move(*task))] {
    const nb::gil_scoped_release nogil;
    end->run(std::move(*task));
  });
}

// Runs tasks until the end. Signals that arrive while the main thread is idle come out here.
void run_tasks(const std::shared_ptr<core::WorkerEnd>& end) {
  for (;;) {
    try {
      if (const base::Hub* hub = end->connection()->hub()) {
        nb::module_::import_("execnet._green").attr("run_tasks")(as_python(*hub), nb::cpp_function([end] {
                                                                   return next_task(end);
                                                                 }));
      } else {
        const nb::gil_scoped_release nogil;
        end->serve(wait_for());
      }
      return;
    } catch (const nb::python_error& error) {
      if (!error.matches(PyExc_KeyboardInterrupt)) {  // a handler of the program's wants to exit
        end->connection()->shut_down();
      }
    }
  }
}

// The interpreter would wait for threads that the code has left. The code is done: they are not wanted.
void end_despite_threads() {
  const nb::object sys = nb::module_::import_("sys");
  const nb::object threading = sys.attr("modules").attr("get")("threading");
  if (threading.is_none()) {
    return;
  }
  const nb::object self = threading.attr("current_thread")();
  for (const nb::handle thread : threading.attr("enumerate")()) {
    if (!thread.is(self) && !nb::cast<bool>(thread.attr("daemon"))) {
      nb::module_::import_("atexit").attr("_run_exitfuncs")();
      sys.attr("stdout").attr("flush")();
      sys.attr("stderr").attr("flush")();
      ::_exit(0);
    }
  }
}

// Where a fatal signal came from is told to the coordinator, which keeps the other end of what is the stderr until
// HELLO. Code that enables faulthandler for itself, as pytest does, gets what it wants instead.
void report_crashes() {
  const nb::object faulthandler = nb::module_::import_("faulthandler");
  if (!nb::cast<bool>(faulthandler.attr("is_enabled")())) {
    const int report =
        base::check("fcntl", [] { return ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3); }, "F_DUPFD_CLOEXEC");
    faulthandler.attr("enable")(nb::arg("file") = report, nb::arg("all_threads") = false);
  }
}

void serve(nb::handle module, int stream_fd, int stderr_fd) {
  base::check("fcntl", [&] { return ::fcntl(stream_fd, F_SETFD, FD_CLOEXEC); }, "F_SETFD");
  base::Fd inherited_stderr(stderr_fd);
  nb::object gateway;
  // Borrows the gateway: the worker outlives every Python object, and all tasks are over when this returns.
  const auto end = core::WorkerEnd::open(
      base::Fd(stream_fd), [&gateway](const core::WorkerEnd::Task& task) { return run_task(task, gateway); });
  worker().end = end;
  gateway = nb::cast(WorkerGateway{end});
  std::optional<core::WorkerSetup> setup;
  {
    const nb::gil_scoped_release nogil;
    setup = end->wait_setup(wait_for());
  }
  if (!setup) {
    exit_with(1);
  }
  make_package_importable(module);
  if (const auto wrong = set_up(*setup, *end->connection())) {
    {
      const nb::gil_scoped_release nogil;
      end->refuse(*wrong);
    }
    exit_with(1);
  }
  report_crashes();
  base::check("dup2", [&] { return ::dup2(inherited_stderr.get(), STDERR_FILENO); });
  inherited_stderr.reset();
  end->say_hello(introduce());
#if PY_VERSION_HEX < 0x030D0000
  // These take the thread that first imports it for the main one. After HELLO, which others wait for.
  nb::module_::import_("threading");
#endif
  run_tasks(end);
  end_despite_threads();
}

}  // namespace

void bind_worker(nb::module_& module) {
  nb::class_<WorkerGateway>(module, "WorkerGateway", "The gateway as code on its other side sees it.")
      .def_prop_ro("id", [](const WorkerGateway& self) { return self.end->id(); })
      .def_prop_ro("execmodel", &execmodel, nb::sig("def execmodel(self) -> execnet._execmodel.ExecModel"),
                   "The execution model of this side.")
      .def("newchannel", &newchannel, nb::sig("def newchannel(self) -> Channel"),
           "A channel nobody uses yet, to be sent over another one.")
      .def("reconfigure", &reconfigure, nb::arg("py2str_as_py3str") = true, nb::arg("py3str_as_py2str") = false,
           "How strings between Python 2 and 3 are loaded, at both ends.")
      .def("__repr__",
           [](const WorkerGateway& self) { return nb::str("<WorkerGateway id={!r}>").format(self.end->id()); });
  module.def(
      "serve", [module = nb::handle(module)](int stream_fd, int stderr_fd) { serve(module, stream_fd, stderr_fd); },
      nb::arg("stream_fd"), nb::arg("stderr_fd"),
      "The life of a worker, on the main thread of an interpreter started for it: `stream_fd` is the connection,\n"
      "`stderr_fd` the stderr to take over once all is well.");
  module.def(
      "exit", [](int status) { std::exit(status); }, nb::arg("status"), nb::sig("def exit(status: int) -> None"),
      "Ends the process as C programs end. The interpreter is not taken down.");
}

}  // namespace execnet::python
