// Python callables as callbacks of channels.
#pragma once

#include <memory>

#include "channel.hpp"
#include "connection/dispatcher.hpp"
#include "gateway/worker_output.hpp"

namespace execnet::python {

// Calls `function` with every item and, unless it is null, with `endmarker` at
// the end. THREAD: the call needs the GIL. What it returns may be used and dropped without the GIL.
std::shared_ptr<core::Callback> make_callback(const PyChannel& channel, nb::object function, nb::object endmarker);

// Calls `function` with text that a worker has printed. What it raises goes to sys.unraisablehook. THREAD: as above.
core::WorkerOutput::Take make_output(nb::object function);

}  // namespace execnet::python
