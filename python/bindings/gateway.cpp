#include "gateway.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <execnet/error.hpp>
#include <optional>
#include <string>
#include <utility>

#include "bindings.hpp"
#include "channel.hpp"
#include "collected.hpp"
#include "connection/value_message.hpp"
#include "gateway/gateway_end.hpp"
#include "gil.hpp"
#include "green.hpp"
#include "imports.hpp"
#include "overridable.hpp"
#include "py_dump.hpp"
#include "py_lent.hpp"

namespace execnet::python {
namespace {

using Self = nb::handle_t<PyGateway>;

std::shared_ptr<core::GatewayEnd> end_of(Self self) {
  sleep_at_end();
  return nb::cast<const PyGateway&>(self).gateway.end();
}

nb::object remote_exec(Self self, const nb::object& source, const nb::kwargs& kwargs) {
  const auto end = end_of(self);
  // What may be run, and where it came from, takes Python's own tools to find out.
  const nb::object described = nb::module_::import_("execnet._source").attr("describe")(source, kwargs);
  const DropsReturned end_of_loans;
  base::Rope payload;
  try {
    payload = encode_for(*end->connection(), described + nb::make_tuple(kwargs));
  } catch (const DumpError&) {
    encode_for(*end->connection(), kwargs);  // fails again, with a path that begins with the argument's name
    throw;
  }
  std::shared_ptr<core::ChannelHandle> channel;
  {
    const base::Wait wait = wait_for(*end->connection());
    const WithoutGil nogil;
    channel = end->exec(std::move(payload), wait);
  }
  return make_channel(std::move(channel), self);
}

nb::object remote_status(Self self, nb::handle timeout) {
  const auto end = end_of(self);
  const base::Wait wait = wait_for(*end->connection(), timeout);
  const Dict status = [&] {
    const WithoutGil nogil;
    return end->remote_status(wait);
  }();
  nb::dict facts;
  facts["numchannels"] = status.at("numchannels").as<std::int64_t>();
  facts["numexecuting"] = status.at("numexecuting").as<std::int64_t>();
  facts["execmodel"] = status.at("execmodel").as<std::string>();
  facts["numblocked"] = status.at("numblocked").as<std::int64_t>();
  facts["outstanding"] = status.at("outstanding").as<std::int64_t>();
  return import_installed("execnet.gateway").attr("RemoteStatus")(facts);
}

void exit(Self self) {
  {
    const auto membership = nb::cast<const PyGateway&>(self).membership.lock();
    const auto target = end_of(self);
    const WithoutGil nogil;
    if (membership) {
      membership->exit(*target);
    } else {
      target->exit();
    }
  }
  if (nb::hasattr(self, "_group")) {
    self.attr("_group").attr("_unregister")(self);
  }
}

void join(Self self, nb::handle timeout) {
  const auto end = end_of(self);
  const base::Wait wait = wait_for(*end->connection(), timeout);
  const WithoutGil nogil;
  try {
    end->join(wait);
  } catch (const TimeoutError&) {
    // Programs of execnet 2.1 expect no error, and look at hasreceiver().
  }
}

nb::object execmodel(Self self) {
  sleep_at_end();
  return nb::hasattr(self, "_group") ? self.attr("_group").attr("execmodel")
                                     : nb::module_::import_("execnet._execmodel").attr("get_execmodel")("thread");
}

// What the other side said of itself when it started.
nb::dict hello(const PyGateway& self) {
  sleep_at_end();
  const RemoteInfo& info = self.gateway.rinfo();
  const Tuple version(info.version_info.begin(), info.version_info.end());
  const base::Buffer bytes = core::encode_value(Value(version));
  nb::dict facts;
  facts["executable"] = info.executable;
  facts["version_info"] = nb::steal(decode(bytes.view(), nullptr, {}).object);
  facts["platform"] = info.platform;
  facts["cwd"] = info.cwd;
  facts["pid"] = info.pid;
  facts["implementation"] = info.implementation;
  return facts;
}

}  // namespace

void bind_gateway(nb::module_& module) {
  nb::class_<PyGateway> type(module, "Gateway", nb::dynamic_attr(), nb::is_weak_referenceable(),
                             nb::type_slots(Collected<PyGateway, &PyGateway::spec>::kSlots),
                             "A Python interpreter somewhere, with a connection to it. Made by Group.makegateway();\n"
                             "lives until its group terminates it. Programs may set attributes of their own.");
  def_overridable(type, "id", [](const PyGateway& self) { return self.gateway.id(); });
  def_overridable(type, "spec", [](const PyGateway& self) { return self.spec.is_valid() ? self.spec : nb::none(); });
  def_overridable(type, "execmodel", &execmodel);
  def_overridable(type, "pid", [](const PyGateway& self) { return self.gateway.pid(); });
  def_overridable(type, "returncode", [](const PyGateway& self) { return self.gateway.returncode(); });
  type.def_prop_ro(
          "remoteaddress",
          [](Self self) {
            const std::string address = end_of(self)->address();
            if (address.empty()) {
              throw nb::attribute_error("only a gateway to another host has a remoteaddress");
            }
            return address;
          },
          nb::sig("def remoteaddress(self) -> str"), "The host, as the specification names it.")
      .def("remote_exec", &remote_exec, nb::arg("source"), nb::arg("kwargs"),
           nb::sig("def remote_exec(self, source: str | types.FunctionType | typing.Callable[..., object] | "
                   "types.ModuleType, **kwargs: object) -> Channel"),
           "Runs source on the other side; `channel` in its globals is the other end of what this returns. A\n"
           "function is called with the channel and the keyword arguments; it must not use globals.\n"
           "Raises ValueError for a function that cannot be sent, DumpError for its arguments, GatewayGone.\n"
           "What the code raises arrives as RemoteError on the channel.")
      .def(
          "newchannel", [](Self self) { return make_channel(end_of(self)->newchannel(), self); },
          nb::sig("def newchannel(self) -> Channel"), "A channel nobody uses yet, to be sent over another one.")
      .def_prop_ro("_hello", &hello, nb::sig("def _hello(self) -> dict[str, typing.Any]"),
                   "What the other side said of itself when it started.")
      .def(
          "_rinfo",
          [](Self self, bool update) {
            sleep_at_end();
            return import_installed("execnet.gateway").attr("_rinfo_of")(self, update);
          },
          nb::arg("update") = false, nb::sig("def _rinfo(self, update: bool = False) -> execnet.gateway.RInfo"),
          "What the other side is: as it said when it started, which costs nothing, or at the last `update`, which\n"
          "asks it by remote_exec().")
      .def("remote_status", &remote_status, nb::arg("timeout").none() = nb::none(),
           nb::sig("def remote_status(self, timeout: float | None = None) -> execnet.gateway.RemoteStatus"),
           "Asks the other side what it is doing. Waits for the answer, at most `timeout` seconds: TimeoutError.\n"
           "Raises GatewayGone.")
      .def(
          "hasreceiver", [](const PyGateway& self) { return self.gateway.hasreceiver(); },
          "Whether the other side is there.")
      .def(
          "reconfigure",
          [](Self self, bool py2str_as_py3str, bool py3str_as_py2str) {
            end_of(self)->reconfigure({py2str_as_py3str, py3str_as_py2str});
          },
          nb::arg("py2str_as_py3str") = true, nb::arg("py3str_as_py2str") = false,
          nb::sig("def reconfigure(self, py2str_as_py3str: bool = True, py3str_as_py2str: bool = False) -> None"),
          "How strings between Python 2 and 3 are loaded, at both ends.")
      .def("exit", &exit, nb::sig("def exit(self) -> None"),
           "Tells the other side to end and leaves the group, whose terminate() still sees to its process. Does\n"
           "not wait; may be repeated.")
      .def("join", &join, nb::arg("timeout").none() = nb::none(),
           nb::sig("def join(self, timeout: float | None = None) -> None"),
           "Waits until the other side is gone, at most `timeout` seconds; hasreceiver() tells whether it is.")
      .def("__repr__", [](const PyGateway& self) { return self.gateway.repr(); });
}

}  // namespace execnet::python
