#include "channel.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <exception>
#include <execnet/error.hpp>
#include <optional>
#include <string>
#include <utility>

#include "bindings.hpp"
#include "callback.hpp"
#include "collected.hpp"
#include "gil.hpp"
#include "green.hpp"
#include "imports.hpp"
#include "overridable.hpp"
#include "py_dump.hpp"
#include "py_lent.hpp"
#include "received.hpp"
#include "text.hpp"
#include "wire/decoder.hpp"

namespace execnet::python {
namespace {

PyTypeObject* channel_type() { return reinterpret_cast<PyTypeObject*>(nb::type<PyChannel>().ptr()); }

// For values that are not sent: any channel may be in them.
class AnyChannels final : public ChannelTable {
 public:
  AnyChannels() : ChannelTable(channel_type()) {}
  std::uint32_t id_of(PyObject* /*channel*/) override { return 0; }
  PyObject* channel(std::uint32_t /*id*/) override { return nullptr; }
};

class ConnectionChannels final : public ChannelTable {
 public:
  // The gateway is that of the channels that channel() makes.
  explicit ConnectionChannels(core::Connection& connection, nb::handle gateway = {})
      : ChannelTable(channel_type()), connection_(connection), gateway_(gateway) {}

  std::uint32_t id_of(PyObject* object) override {
    const PyChannel* channel = nb::inst_ready(object) ? nb::inst_ptr<PyChannel>(object) : nullptr;
    if (channel == nullptr || &channel->handle->connection() != &connection_) {
      throw DumpError("a channel can only be sent over its own gateway");
    }
    return channel->handle->id();
  }

  PyObject* channel(std::uint32_t id) override {
    std::shared_ptr<core::ChannelHandle> handle;
    {
      auto lock = connection_.lock();
      handle = connection_.channel(lock, id);
    }
    try {
      return make_channel(std::move(handle), gateway_).release().ptr();
    } catch (nb::python_error& error) {
      error.restore();
      return nullptr;
    }
  }

 private:
  core::Connection& connection_;
  nb::handle gateway_;
};

void send(const PyChannel& channel, nb::handle item, nb::handle timeout) {
  const auto handle = channel.handle;
  const bool to_be_told = handle->is_to_be_told();  // before a callback of Python can run again
  const DropsReturned end;
  base::Rope payload = encode_for(handle->connection(), item);
  const base::Wait wait = wait_for(handle->connection(), timeout);
  const WithoutGil nogil;
  handle->send(std::move(payload), wait, to_be_told);
}

bool can_send(nb::handle value) {
  sleep_at_end();
  const DropsReturned end;
  AnyChannels channels;
  base::Rope payload;
  try {
    encode(value.ptr(), payload, &channels);
    return true;
  } catch (const DumpError&) {
    return false;
  }
}

void set_window(const PyChannel& channel, std::optional<std::int64_t> bytes) {
  if (bytes && *bytes < 1) {
    throw nb::value_error("a window is a number of bytes from 1 on, or None for no window");
  }
  const auto handle = channel.handle;
  const WithoutGil nogil;
  handle->set_window(bytes ? static_cast<std::uint64_t>(*bytes) : core::kUnbounded);
}

std::optional<std::uint64_t> window(const PyChannel& channel) {
  const std::uint64_t window = channel.handle->flow().window;
  return window == core::kUnbounded ? std::nullopt : std::optional(window);
}

std::optional<std::uint64_t> outstanding(const PyChannel& channel) {
  const auto [window, outstanding] = channel.handle->flow();
  return window == core::kUnbounded ? std::nullopt : std::optional(outstanding);
}

nb::object receive(const PyChannel& channel, nb::handle timeout, bool views) {
  const auto handle = channel.handle;  // decoding may run code of the program
  std::optional<base::Buffer> item = handle->try_receive();
  if (!item) {
    const base::Wait wait = wait_for(handle->connection(), timeout);
    const WithoutGil nogil;
    item = handle->receive(wait);
  }
  if (views && item->size() >= base::Rope::kWorthLending) {
    return decode_with_views(handle->connection(), channel.gateway, std::move(*item), handle->strings());
  }
  return decode_from(handle->connection(), channel.gateway, *item, handle->strings());
}

nb::object next(const PyChannel& channel) {
  try {
    return receive(channel, nb::none(), false);
  } catch (const EndOfChannel&) {
    throw nb::stop_iteration();
  }
}

void close(const PyChannel& channel, const nb::object& error) {
  sleep_at_end();
  std::optional<std::string> text;
  if (!error.is_none()) {
    text = portable(error);
  }
  const WithoutGil nogil;
  channel.handle->close(text);
}

void waitclose(const PyChannel& channel, nb::handle timeout) {
  const auto handle = channel.handle;
  const base::Wait wait = wait_for(handle->connection(), timeout);
  const WithoutGil nogil;
  handle->waitclose(wait);
}

void reconfigure(const PyChannel& channel, bool py2str_as_py3str, bool py3str_as_py2str) {
  const auto handle = channel.handle;
  const base::Wait wait = wait_for(handle->connection());
  const WithoutGil nogil;
  handle->reconfigure({py2str_as_py3str, py3str_as_py2str}, wait);
}

void setcallback(const PyChannel& channel, nb::object function, nb::object endmarker, nb::handle no_endmarker) {
  if (PyCallable_Check(function.ptr()) == 0) {
    throw nb::type_error("a callback must be callable");
  }
  if (endmarker.is(no_endmarker)) {
    endmarker = nb::object();
  }
  const auto callback = make_callback(channel, std::move(function), std::move(endmarker));
  const auto handle = channel.handle;
  const base::Hub* const hub = wait_for(handle->connection()).hub;
  bool in_greenlet = false;
  {
    const WithoutGil nogil;
    in_greenlet = handle->set_callback(callback, hub != nullptr);
  }
  if (in_greenlet) {
    spawn_dispatcher(*hub, handle->connection());
  }
}

// Errors as objects, to be looked at and not raised.
nb::object remote_error(const PyChannel& channel, nb::handle module) {
  sleep_at_end();
  const std::exception_ptr thrown = channel.handle->take_error();
  if (!thrown) {
    return nb::none();
  }
  try {
    std::rethrow_exception(thrown);
  } catch (const RemoteError& error) {
    return module.attr("RemoteError")(error.what());
  } catch (const GatewayGone& error) {
    // pytest-xdist has but "Not properly terminated" to say of an EOFError, which GatewayGone is, and shows other
    // errors.
    return module.attr("RemoteError")(error.what());
  }
}

}  // namespace

nb::object make_channel(std::shared_ptr<core::ChannelHandle> handle, nb::handle gateway) {
  sleep_at_end();
  return nb::cast(PyChannel{std::move(handle), nb::borrow(gateway)});
}

base::Rope encode_for(core::Connection& connection, nb::handle value) {
  sleep_at_end();
  ConnectionChannels channels(connection);
  base::Rope payload;
  encode(value.ptr(), payload, &channels);
  return payload;
}

// Nothing may follow an item.
static nb::object whole(std::string_view bytes, const Decoded& decoded) {
  nb::object value = nb::steal(decoded.object);
  wire::check_end(bytes, decoded.end);
  return value;
}

nb::object decode_from(core::Connection& connection, nb::handle gateway, const base::Buffer& payload,
                       StringConfig strings) {
  sleep_at_end();
  const nb::object hold = nb::borrow(gateway);
  ConnectionChannels channels(connection, gateway);
  return whole(payload.view(), decode(payload.view(), &channels, strings));
}

nb::object decode_with_views(core::Connection& connection, nb::handle gateway, base::Buffer payload,
                             StringConfig strings) {
  sleep_at_end();
  const nb::object hold = nb::borrow(gateway);
  ConnectionChannels channels(connection, gateway);
  const std::string_view bytes = payload.view();  // they stay where they are
  const nb::object memory = memory_of(std::move(payload));
  return whole(bytes, decode(bytes, &channels, strings, 0, memory.ptr()));
}

void bind_channel(nb::module_& module) {
  nb::class_<PyChannel> type(module, "Channel", nb::dynamic_attr(), nb::is_weak_referenceable(),
                             nb::type_slots(Collected<PyChannel, &PyChannel::gateway>::kSlots),
                             "One end of a two-way stream of values between the two sides of a gateway. When the last\n"
                             "reference to it goes, it closes. Programs may set attributes of their own.\n\n"
                             "    channel = gateway.remote_exec(\"channel.send(channel.receive() + 1)\")\n"
                             "    channel.send(41)\n"
                             "    assert channel.receive() == 42");
  const nb::object object = nb::borrow(reinterpret_cast<PyObject*>(&PyBaseObject_Type));
  module.attr("NO_ENDMARKER_WANTED") = object();
  const nb::object no_endmarker = module.attr("NO_ENDMARKER_WANTED");
  type.def("send", &send, nb::arg("item").none(), nb::arg("timeout").none() = nb::none(),
           nb::sig("def send(self, item: object, timeout: float | None = None) -> None"),
           "Sends a value of builtin types; channels of the same gateway may be in it, and what has the buffer\n"
           "protocol (bytearray, memoryview, array.array, NumPy arrays), which arrives as bytes. Waits while the\n"
           "other side's buffers, or the channel's window, are full, at most `timeout` seconds: TimeoutError. Raises\n"
           "DumpError, ChannelClosed, and GatewayGone when the other side is gone; with a callback only\n"
           "after that was told the end: an item sent before is lost on its way. After TimeoutError and\n"
           "DumpError nothing was sent.")
      .def("set_window", &set_window, nb::arg("bytes").none(),
           nb::sig("def set_window(self, bytes: int | None) -> None"),
           "Sets the window of the channel, at both ends: so many bytes of items may be on their way in each\n"
           "direction, sent by one side and not yet received by the code at the other; then send() waits. An\n"
           "item larger than the window goes when next to nothing is on its way. None lifts the window; when\n"
           "both ends set one, the smaller holds. Without this it is the `window=` of the specification.\n"
           "Raises ValueError for less than 1, OSError when the channel is closed.\n\n"
           "    channel.set_window(8 * 2**20)")
      .def_prop_ro("window", &window, "The window of each direction, in bytes; None if there is none.")
      .def_prop_ro("outstanding", &outstanding,
                   "Bytes of items sent here and not yet received by the code at the other side; None without a\n"
                   "window: then the other side does not tell.")
      .def("receive", &receive, nb::arg("timeout").none() = nb::none(), nb::kw_only(), nb::arg("views") = false,
           nb::sig("def receive(self, timeout: float | None = None, *, views: bool = False) -> typing.Any"),
           "The next value from the other side. Waits for it, at most `timeout` seconds: TimeoutError. Raises\n"
           "RemoteError when the other side raised; EOFError when it has closed, or, as GatewayGone, is gone.\n"
           "With `views`, bytes of 64 KiB and more, wherever they stand in the value, are read-only memoryviews of\n"
           "the memory they were received in, and not copied once more.\n\n"
           "    pixels = numpy.frombuffer(channel.receive(views=True), dtype=\"float32\")")
      .def("close", &close, nb::arg("error") = nb::none(), nb::sig("def close(self, error: str | None = None) -> None"),
           "Closes both directions; with an error text the other side gets a RemoteError. May be repeated.")
      .def(
          "isclosed", [](const PyChannel& channel) { return channel.handle->isclosed(); },
          "Whether this end can no longer send.")
      .def("waitclose", &waitclose, nb::arg("timeout").none() = nb::none(),
           nb::sig("def waitclose(self, timeout: float | None = None) -> None"),
           "Waits until the other side sends no more, at most `timeout` seconds: TimeoutError. Raises\n"
           "RemoteError when the other side raised, GatewayGone when it is gone.")
      .def("reconfigure", &reconfigure, nb::arg("py2str_as_py3str") = true, nb::arg("py3str_as_py2str") = false,
           nb::sig("def reconfigure(self, py2str_as_py3str: bool = True, py3str_as_py2str: bool = False) -> None"),
           "How strings between Python 2 and 3 are loaded on this channel, at both ends.")
      .def(
          "setcallback",
          [none = nb::handle(no_endmarker)](const PyChannel& channel, nb::object function, nb::object endmarker) {
            setcallback(channel, std::move(function), std::move(endmarker), none);
          },
          nb::arg("callback"), nb::arg("endmarker").none() = no_endmarker,
          nb::sig("def setcallback(self, callback: collections.abc.Callable[[typing.Any], object], "
                  "endmarker: object = ...) -> None"),
          "From now on items are given to the callback, on a thread of the gateway, one at a time and in\n"
          "order; those that have arrived first. If an endmarker is given, the callback is called with it\n"
          "once, after the last item. A callback that raises closes the channel with that error. It stays\n"
          "active when the last reference to the channel goes. Raises ExecnetStateError if there is one already.")
      .def(
          "_getremoteerror",
          [module = nb::handle(module)](const PyChannel& channel) { return remote_error(channel, module); },
          nb::sig("def _getremoteerror(self) -> Exception | None"),
          "What ended the channel, once, with the text of RemoteError or of GatewayGone; None if neither did.")
      .def(
          "__iter__", [](const nb::object& self) { return self; }, nb::sig("def __iter__(self) -> Channel"))
      .def("__next__", &next, nb::sig("def __next__(self) -> typing.Any"))
      .def("next", &next, nb::sig("def next(self) -> typing.Any"), "As next(channel).")
      .def(
          "makefile",
          [](const nb::object& self, const nb::object& mode, bool proxyclose, const nb::object& encoding) {
            sleep_at_end();
            return import_installed("execnet._file").attr("make_file")(self, mode, proxyclose, encoding);
          },
          nb::arg("mode") = "w", nb::arg("proxyclose") = false, nb::arg("encoding") = nb::none(),
          nb::sig("def makefile(self, mode: typing.Literal['r', 'w'] = 'w', proxyclose: bool = False, "
                  "encoding: str | None = None) -> execnet._file.ChannelFile"),
          "A file to write to, each write an item, or to read from. Closing it closes the channel if `proxyclose`.\n"
          "With an encoding the items are bytes, and what is written and read is their text. Raises LookupError for\n"
          "an unknown one.\n\n"
          "    print(\"text\", file=channel.makefile(\"w\", encoding=\"latin-1\"))")
      .def("__repr__", [](const PyChannel& channel) { return channel.handle->repr(); })
      .def("__hash__", [](const PyChannel& channel) { return std::hash<void*>{}(channel.handle.get()); })
      .def(
          "__eq__",
          [](const PyChannel& channel, nb::handle other) {
            return Py_TYPE(other.ptr()) == channel_type() && nb::inst_ready(other) &&
                   nb::inst_ptr<PyChannel>(other)->handle == channel.handle;
          },
          nb::arg("other").none(), nb::sig("def __eq__(self, other: object, /) -> bool"));
  def_overridable(type, "gateway", [](const PyChannel& c) { return c.gateway.is_valid() ? c.gateway : nb::none(); });
  def_overridable(type, "id", [](const PyChannel& channel) { return channel.handle->id(); });
  module.def("can_send", &can_send, nb::arg("obj").none(), nb::sig("def can_send(obj: object) -> bool"),
             "Whether a channel can carry the value: plain data, and channels, which go over channels of their own\n"
             "gateway. Large bytes and strings are looked at and not copied.\n\n"
             "    channel.send(value if execnet.can_send(value) else repr(value))");
  type.attr("RemoteError") = module.attr("RemoteError");
  type.attr("TimeoutError") = module.attr("TimeoutError");
}

}  // namespace execnet::python
