// What a Group is inside: which gateways there are and what becomes of them is decided by the core.
#include "gateway/membership.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "callback.hpp"
#include "gateway.hpp"
#include "gateway/gateway_end.hpp"
#include "gil.hpp"
#include "green.hpp"
#include "interrupt.hpp"
#include "transport/bootstrap.hpp"
#include "worker_code.hpp"
#include "xspec.hpp"

namespace execnet::python {
namespace {

// Terminating waits: other threads go on meanwhile.
struct PyMembership {
  std::shared_ptr<core::Membership> core;
  const base::Hub* hub = nullptr;  // of the program's side

  explicit PyMembership(transport::LocalPython python) : core(std::make_shared<core::Membership>(std::move(python))) {}
  PyMembership(const PyMembership&) = delete;
  PyMembership& operator=(const PyMembership&) = delete;
  ~PyMembership() {
    const WithoutGil nogil;
    core->end();
    core.reset();
  }
};

std::string in_bytes(nb::handle path) {
  const nb::object bytes = nb::steal(PyUnicode_EncodeFSDefault(path.ptr()));
  if (!bytes.is_valid()) {
    throw nb::python_error();
  }
  return std::string(nb::borrow<nb::bytes>(bytes).c_str(), nb::len(bytes));
}

void begin_output(core::GatewayEnd& end, nb::object function) {
  const base::Hub* const hub = wait_for(*end.connection()).hub;
  auto take = make_output(std::move(function));
  bool in_greenlet = false;
  {
    const WithoutGil nogil;
    in_greenlet = end.begin_output(std::move(take), hub != nullptr);
  }
  if (in_greenlet) {
    spawn_dispatcher(*hub, *end.connection());
  }
}

nb::list start(const PyMembership& self, const nb::list& specs, const nb::list& commands) {
  sleep_at_end();
  std::vector<XSpec> wanted;
  std::vector<nb::object> outputs;
  std::vector<bool> is_taken;
  for (const nb::handle spec : specs) {
    wanted.push_back(spec_of(spec));
    outputs.push_back(output_of(spec));
    is_taken.push_back(outputs.back().is_valid());
  }
  std::vector<std::vector<std::string>> words;
  for (const nb::handle command : commands) {
    words.emplace_back();
    for (const nb::handle word : command) {
      words.back().push_back(in_bytes(word));
    }
  }
  const auto membership = self.core;
  std::vector<std::shared_ptr<core::GatewayEnd>> gateways;
  const base::Hub* const hub = self.hub;
  {
    const base::Wait wait = wait_for(hub);
    const WithoutGil nogil;
    gateways = membership->start(std::move(wanted), wait, words, is_taken);
  }
  nb::list started;
  std::vector<std::shared_ptr<core::GatewayEnd>> ends;
  for (std::size_t i = 0; i < gateways.size(); ++i) {
    core::Connection& connection = *gateways[i]->connection();
    connection.set_hub(hub);
    connection.set_thread_scope(with_thread_state);
    ends.push_back(gateways[i]);
    started.append(nb::cast(PyGateway{Gateway(std::move(gateways[i])), membership, nb::borrow(specs[i])}));
  }
  try {
    for (std::size_t i = 0; i < ends.size(); ++i) {
      if (outputs[i].is_valid()) {
        begin_output(*ends[i], std::move(outputs[i]));
      }
    }
  } catch (...) {  // for want of a thread
    for (const auto& end : ends) {
      membership->exit(*end);
    }
    throw;
  }
  return started;
}

nb::list launch_args(const PyMembership& self, nb::handle_t<XSpec> given) {
  sleep_at_end();
  const XSpec spec = spec_of(given);
  spec.validate();
  nb::list words;
  for (const std::string& word : self.core->launch_args(spec)) {
    words.append(nb::steal(PyUnicode_DecodeFSDefaultAndSize(word.data(), static_cast<Py_ssize_t>(word.size()))));
  }
  return words;
}

bool terminate(const PyMembership& self, nb::handle timeout) {
  const auto membership = self.core;
  const auto seconds = seconds_of(timeout);
  const base::Wait wait = wait_for(self.hub);
  const WithoutGil nogil;
  return membership->terminate(seconds, wait);
}

}  // namespace

void bind_membership(nb::module_& module) {
  nb::class_<PyMembership>(module, "Membership", "The gateways of one Group, from start to end.")
      .def(
          "__init__",
          [](PyMembership* self, const nb::bytes& python, const nb::bytes& native_module, const nb::list& options) {
            std::vector<std::string> words;
            for (const nb::handle option : options) {
              const auto word = nb::cast<nb::bytes>(option);
              words.emplace_back(word.c_str(), word.size());
            }
            constexpr std::size_t kMagic = 4;
            new (self) PyMembership(
                {.executable = std::string(python.c_str(), python.size()),
                 .native_module = std::string(native_module.c_str(), native_module.size()),
                 .options = std::move(words),
                 .imports_first = PY_VERSION_HEX >= 0x030D0000,
                 .worker_code = {{.magic = worker_code().substr(0, kMagic), .code_gz = worker_code().substr(kMagic)}}});
          },
          nb::arg("python"), nb::arg("native_module"), nb::arg("options"),
          nb::sig("def __init__(self, python: bytes, native_module: bytes, options: list[bytes]) -> None"),
          "Paths: the interpreter of plain popen gateways, and this extension, which it can load; and the options\n"
          "that it is started with.")
      .def(
          "set_execmodel", [](PyMembership& self, const std::string& execmodel) { self.hub = hub_of(execmodel); },
          nb::arg("execmodel"), "The execution model of this side, for members to come.")
      .def(
          "set_grace", [](const PyMembership& self, double seconds) { self.core->set_grace(base::Seconds(seconds)); },
          nb::arg("seconds"), "For members to come whose specification has none. Raises ValueError.")
      .def("start", &start, nb::arg("specs"), nb::arg("commands"),
           nb::sig("def start(self, specs: list[XSpec], commands: list[list[str]]) -> list[Gateway]"),
           "Starts a gateway for each, all at the same time; when one fails none stays. A command line that is not\n"
           "empty is run in place of ours.")
      .def("launch_args", &launch_args, nb::arg("spec"), nb::sig("def launch_args(self, spec: XSpec) -> list[str]"),
           "A command line that start() can be given. Raises ValueError for what it would refuse.")
      .def(
          "terminate", &terminate, nb::arg("timeout").none() = nb::none(),
          nb::sig("def terminate(self, timeout: float | None = None) -> bool"),
          "Ends all, and waits until their processes are gone, at the longest 0.2 s beyond `timeout` seconds. Whether\n"
          "all have ended by themselves.")
      .def(
          "tell_to_exit",
          [](const PyMembership& self) {
            const auto membership = self.core;
            const WithoutGil nogil;
            membership->tell_to_exit();
          },
          nb::sig("def tell_to_exit(self) -> None"), "What terminate() begins with; does not wait.")
      .def(
          "allocate_id", [](const PyMembership& self, XSpec& spec) { self.core->allocate_id(spec); }, nb::arg("spec"),
          "Gives the specification a free id, if it has none.");
  module.attr("BOOTSTRAP_LINE") = transport::kBootstrapLine;
  module.def(
      "keep_states", &keep_states,
      "For the end of the interpreter: threads that still run may look at the interpreter's state until the process\n"
      "has ended.");
}

}  // namespace execnet::python
