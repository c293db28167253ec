// The extension module execnet._core: a table of contents.
#include <execnet/version.hpp>

#include "bindings.hpp"

NB_MODULE(_core, module) {
  using namespace execnet::python;
#ifdef NDEBUG
  // What a program still holds at its end is its own business.
  nb::set_leak_warnings(false);
#endif
  module.attr("__version__") = execnet::kVersion;
  bind_errors(module);
  bind_interrupt(module);
  bind_dump(module);
  bind_xspec(module);
  bind_received(module);
  bind_channel(module);
  bind_gateway(module);
  bind_membership(module);
  bind_rsync(module);
  bind_green(module);
  bind_worker(module);
  bind_fork_server(module);
}
