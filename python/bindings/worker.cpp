// The native worker: what the one line on the command line of a plain popen gateway's interpreter calls.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "bindings.hpp"
#include "channel.hpp"
#include "connection/value_message.hpp"
#include "gateway/worker_end.hpp"
#include "gil.hpp"
#include "green.hpp"
#include "imports.hpp"
#include "interrupt.hpp"
#include "text.hpp"
#include "worker_exec.hpp"
#include "worker_process.hpp"

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
  sleep_at_end();
  return import_installed("execnet._execmodel").attr("get_execmodel")(self.end->execmodel());
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
  const nb::object os = import_installed("os");
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
      step = "env:" + name + "=***";  // it may be secret
      os.attr("environ")[name.c_str()] = value;
    }
    step = "execmodel=" + setup.execmodel;
    if (setup.in_greenlets()) {
      const InstalledImports installed;
      connection.set_hub(hub_of(setup.execmodel));
      nb::module_::import_("execnet._green").attr("make_hub")(setup.execmodel);
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
  if (setup.dont_write_bytecode) {
    sys.attr("dont_write_bytecode") = true;
  }
  return std::nullopt;
}

// As an interpreter has it that is started without them.
void tell_of_closed(const core::StandardStreams& streams) {
  const nb::object sys = nb::module_::import_("sys");
  const std::pair<const char*, core::Standard> all[] = {
      {"stdin", streams.in}, {"stdout", streams.out}, {"stderr", streams.err}};
  for (const auto& [name, standard] : all) {
    if (standard == core::Standard::kClose) {
      sys.attr(name) = nb::none();
    }
  }
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
    const WithoutGil nogil;
    task = end->next_task(wait);
  }
  if (!task) {
    return nb::none();
  }
  return nb::cpp_function([end, task = std::make_shared<core::WorkerEnd::Task>(std::move(*task))] {
    const WithoutGil nogil;
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
        const WithoutGil nogil;
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

// Before the process ends with an interpreter that is not taken down: the threads that end here still want it.
void stop_worker() {
  if (const auto end = std::exchange(worker_process().end, nullptr)) {
    const WithoutGil nogil;
    end->stop();
  }
}

// As the interpreter begins its own end: executors are told of it, and threads of the code that are no daemons are
// waited for. Those who register for the end with `threading` want to be called before handlers of atexit: one of these
// joins processes that only end when their executor has told them to. False if that failed, as at a KeyboardInterrupt.
// The interpreter calls it again, which does no harm after a success.
bool wait_for_threads(core::Connection& connection) {
  const nb::object threading = nb::borrow(PyDict_GetItemString(PyImport_GetModuleDict(), "threading"));
  if (!threading.is_valid()) {
    return true;
  }
  try {
    // Patched from within a greenlet, `threading` takes that for the main thread, and would wait for this one.
    threading.attr("main_thread")().attr("_ident") = threading.attr("get_ident")();
    threading.attr("_shutdown")();
    return true;
  } catch (nb::python_error& error) {
    const bool lost = [&connection] {
      auto lock = connection.lock();
      return connection.gone(lock).has_value();
    }();
    if (!lost || !error.matches(PyExc_KeyboardInterrupt)) {
      error.discard_as_unraisable(threading);
    }
    return false;
  }
}

// Handlers of atexit run; the interpreter is not taken down.
[[noreturn]] void end_at_once() {
  try {
    nb::module_::import_("atexit").attr("_run_exitfuncs")();
  } catch (const nb::python_error&) {
    // It was printed.
  }
  flush("stdout");
  flush("stderr");
  stop_worker();
  ::_exit(0);
}

// Whether threads of the code run on: daemons, and such as were waited for in vain. The interpreter would free what
// they still use of it: they would end the process with SIGSEGV, on some versions of Python.
bool has_threads_left() { return nb::len(nb::module_::import_("sys").attr("_current_frames")()) > 1; }

// The rest of the start, for which the interpreter is needed: ends with HELLO, or with what keeps it from serving.
void start_serving(nb::handle module, int stderr_fd) {
  WorkerProcess& worker = worker_process();
  std::optional<core::WorkerSetup> setup;
  {
    const WithoutGil nogil;
    setup = worker.end->wait_setup(wait_for());
  }
  if (!setup) {
    exit_with(1);
  }
  restore_working_directory();
  make_package_importable(module);
  if (const auto wrong = set_up(*setup, *worker.end->connection())) {
    {
      const WithoutGil nogil;
      worker.end->refuse(*wrong);
    }
    exit_with(1);
  }
  if (const int report = report_crashes(); report >= 0) {
    worker.end->complain_to(report);
  }
  take_streams(setup->streams, stderr_fd);
  tell_of_closed(setup->streams);
  worker.end->say_hello(introduce());
  worker.serves = true;
}

void serve(nb::handle module, int stream_fd, int stderr_fd) {
  WorkerProcess& worker = worker_process();
  if (!worker.end) {  // else it was forked, and the interpreter was not wanted until now
    worker.open(stream_fd);
  }
  // Borrows the gateway: the worker outlives every Python object, and all tasks are over when this returns.
  const nb::object gateway = nb::cast(WorkerGateway{worker.end});
  worker.gateway = gateway;
  if (!worker.serves) {
    try {
      start_serving(module, stderr_fd);
    } catch (const nb::python_error&) {
      throw;
    } catch (const std::exception& error) {  // for want of memory, say: the coordinator is told
      worker.end->on_stream_end(error.what());
      throw;
    }
  }
  run_tasks(worker.end);
  const bool waited = wait_for_threads(*worker.end->connection());
  // If no code has run there is nothing of its to be destroyed, and taking an interpreter down takes as long as to
  // start a third of one.
  if (!worker.has_run_code || !waited || has_threads_left()) {
    end_at_once();
  }
}

}  // namespace

void bind_worker(nb::module_& module) {
  nb::class_<WorkerGateway>(module, "WorkerGateway", nb::dynamic_attr(), nb::is_weak_referenceable(),
                            "The gateway as code on its other side sees it.")
      .def_prop_ro("id", [](const WorkerGateway& self) { return self.end->id(); })
      .def_prop_ro("execmodel", &execmodel, nb::sig("def execmodel(self) -> execnet._execmodel.ExecModel"),
                   "The execution model of this side.")
      .def("newchannel", &newchannel, nb::sig("def newchannel(self) -> Channel"),
           "A channel nobody uses yet, to be sent over another one.")
      .def("reconfigure", &reconfigure, nb::arg("py2str_as_py3str") = true, nb::arg("py3str_as_py2str") = false,
           "How strings between Python 2 and 3 are loaded, at both ends.")
      .def("__repr__",
           [](const WorkerGateway& self) { return nb::str("<WorkerGateway id={!r}>").format(self.end->id()); });
  module.def("import_installed", &import_installed, nb::arg("name"),
             nb::sig("def import_installed(name: str) -> types.ModuleType"),
             "The module of that name. What is not imported yet is not looked for in the working directory, even if\n"
             "that is on the path.");
  module.def(
      "serve", [module = nb::handle(module)](int stream_fd, int stderr_fd) { serve(module, stream_fd, stderr_fd); },
      nb::arg("stream_fd"), nb::arg("stderr_fd"),
      "The life of a worker, on the main thread of an interpreter started for it: `stream_fd` is the connection,\n"
      "`stderr_fd` the stderr to take over once all is well.");
  module.def(
      "exit",
      [](int status) {
        stop_worker();
        std::exit(status);
      },
      nb::arg("status"), nb::sig("def exit(status: int) -> None"),
      "Ends the process as C programs end. The interpreter is not taken down.");
}

}  // namespace execnet::python
