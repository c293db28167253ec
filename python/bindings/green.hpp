// Waits of greenlets: in a program of gevent or eventlet a call that waits blocks its greenlet and not
// its thread. The Python side of it is execnet/_green.py. THREAD: all of this needs the GIL.
#pragma once

#include <nanobind/nanobind.h>

#include <optional>
#include <string>

#include "base/wait.hpp"
#include "connection/connection.hpp"

namespace execnet::python {

// The hub of an execution model; null for those that have threads. Lives as long as the process.
// Throws ImportError where its package is not installed.
const base::Hub* hub_of(const std::string& execmodel);

// A wait of `timeout` seconds, none for ever, that Ctrl-C ends. In a greenlet: of a program that has chosen
// `hub`, or whose process is monkey-patched.
base::Wait wait_for(const base::Hub* hub, nanobind::handle timeout = Py_None);
// The same for a call that uses the connection.
inline base::Wait wait_for(const core::Connection& connection, nanobind::handle timeout = Py_None) {
  return wait_for(connection.hub(), timeout);
}

// Has a new greenlet of the calling thread run the connection's callbacks, as Dispatcher::start() has asked for.
void spawn_dispatcher(const base::Hub& hub, core::Connection& connection);
// The hub as an object of execnet._green.
nanobind::object as_python(const base::Hub& hub);

}  // namespace execnet::python
