// The Python class Channel, and values as they travel over one.
#pragma once

#include <nanobind/nanobind.h>

#include <memory>

#include "base/rope.hpp"
#include "connection/channel_handle.hpp"
#include "connection/connection.hpp"

namespace execnet::python {

namespace nb = nanobind;

// What a Channel object holds. THREAD: needs the GIL.
struct PyChannel {
  std::shared_ptr<core::ChannelHandle> handle;
  nb::object gateway;  // the Gateway or WorkerGateway; null after the garbage collector's tp_clear
};

// A new Channel object.
nb::object make_channel(std::shared_ptr<core::ChannelHandle> handle, nb::handle gateway);

// A payload for a connection, whose channels it may contain. Throws DumpError.
base::Rope encode_for(core::Connection& connection, nb::handle value);
// The value; channels in it get the given gateway. Throws LoadError.
nb::object decode_from(core::Connection& connection, nb::handle gateway, const base::Buffer& payload,
                       StringConfig strings);
// The same, but large bytes in it are memoryviews of the payload.
nb::object decode_with_views(core::Connection& connection, nb::handle gateway, base::Buffer payload,
                             StringConfig strings);

}  // namespace execnet::python
