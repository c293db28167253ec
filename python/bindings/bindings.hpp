// The parts of the extension module. Each function adds one. THREAD: the one that imports the module, with the GIL.
#pragma once

#include <nanobind/nanobind.h>

namespace execnet::python {

namespace nb = nanobind;

void bind_errors(nb::module_& module);
void bind_interrupt(nb::module_& module);
void bind_dump(nb::module_& module);
void bind_xspec(nb::module_& module);
void bind_overridable(nb::module_& module);
void bind_channel(nb::module_& module);
void bind_gateway(nb::module_& module);
void bind_membership(nb::module_& module);
void bind_received(nb::module_& module);
void bind_rsync(nb::module_& module);
void bind_green(nb::module_& module);
void bind_worker(nb::module_& module);
void bind_fork_server(nb::module_& module);

}  // namespace execnet::python
