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
#include "connection/value_message.hpp"
#include "gateway/gateway_end.hpp"
#include "gil.hpp"
#include "green.hpp"
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

struct RemoteStatus {
  std::int64_t numchannels;
  std::int64_t numexecuting;
  std::string execmodel;
  std::int64_t numblocked;
  std::int64_t outstanding;
};

RemoteStatus remote_status(Self self, nb::handle timeout) {
  const auto end = end_of(self);
  const base::Wait wait = wait_for(*end->connection(), timeout);
  const WithoutGil nogil;
  const Dict status = end->remote_status(wait);
  return {status.at("numchannels").as<std::int64_t>(), status.at("numexecuting").as<std::int64_t>(),
          status.at("execmodel").as<std::string>(), status.at("numblocked").as<std::int64_t>(),
          status.at("outstanding").as<std::int64_t>()};
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

nb::object version_info(const RemoteInfo& info) {
  sleep_at_end();
  const Tuple parts(info.version_info.begin(), info.version_info.end());
  const base::Buffer bytes = core::encode_value(Value(parts));
  return nb::steal(decode(bytes.view(), nullptr, {}).object);
}

void bind_info(nb::module_& module) {
  nb::class_<RemoteInfo>(module, "RInfo", "What the other side said of itself when it started.")
      .def_ro("executable", &RemoteInfo::executable, "Path of the interpreter.")
      .def_prop_ro("version_info", &version_info, nb::sig("def version_info(self) -> tuple[int, int, int, str, int]"),
                   "As sys.version_info there.")
      .def_ro("platform", &RemoteInfo::platform, "As sys.platform there.")
      .def_ro("cwd", &RemoteInfo::cwd, "The working directory it started in.")
      .def_ro("pid", &RemoteInfo::pid)
      .def_ro("implementation", &RemoteInfo::implementation, "Of the worker: 'native' or 'pure'.")
      .def("__repr__", [](const nb::object& self) {
        sleep_at_end();
        return nb::str(
                   "<RInfo executable={0.executable!r}, version_info={0.version_info!r}, platform={0.platform!r}, "
                   "cwd={0.cwd!r}, pid={0.pid!r}>")
            .format(self);
      });
  nb::class_<RemoteStatus>(module, "RemoteStatus", "What the other side is doing.")
      .def_ro("numchannels", &RemoteStatus::numchannels, "Channels that are open.")
      .def_ro("numexecuting", &RemoteStatus::numexecuting, "Sources that run.")
      .def_ro("execmodel", &RemoteStatus::execmodel)
      .def_ro("numblocked", &RemoteStatus::numblocked, "Sends there that wait for room in the window of their channel.")
      .def_ro("outstanding", &RemoteStatus::outstanding,
              "Bytes of items sent there, on channels with a window, and not yet received here.")
      .def("__repr__", [](const nb::object& self) {
        return nb::str(
                   "<RemoteStatus numchannels={0.numchannels}, numexecuting={0.numexecuting}, "
                   "execmodel={0.execmodel!r}, numblocked={0.numblocked!r}, outstanding={0.outstanding!r}>")
            .format(self);
      });
}

}  // namespace

void bind_gateway(nb::module_& module) {
  bind_info(module);
  nb::class_<PyGateway>(module, "Gateway", nb::dynamic_attr(), nb::is_weak_referenceable(),
                        "A Python interpreter somewhere, with a connection to it. Made by Group.makegateway(); lives\n"
                        "until its group terminates it. Programs may set attributes of their own.")
      .def_prop_ro("id", [](const PyGateway& self) { return self.gateway.id(); })
      .def_prop_ro(
          "spec", [](const PyGateway& self) { return self.spec; }, nb::sig("def spec(self) -> XSpec"),
          "The specification it was made from.")
      .def_prop_ro("execmodel", &execmodel, nb::sig("def execmodel(self) -> execnet._execmodel.ExecModel"),
                   "The execution model of this side, that of the group.")
      .def_prop_ro(
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
      .def(
          "_rinfo", [](const PyGateway& self, bool) -> const RemoteInfo& { return self.gateway.rinfo(); },
          nb::arg("update") = false, nb::rv_policy::reference_internal,
          "What the other side said of itself when it started: costs nothing. There is nothing to `update`.")
      .def("remote_status", &remote_status, nb::arg("timeout").none() = nb::none(),
           nb::sig("def remote_status(self, timeout: float | None = None) -> RemoteStatus"),
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
