// Runs what remote_exec sends. The same as class Executor of worker/worker.py, which says it in Python.
#pragma once

#include <nanobind/nanobind.h>

#include "core/worker_end.hpp"

namespace execnet::python {

// Runs a task to its end and closes its channel; `gateway` is what its channels refer to.
// THREAD: any, without the GIL. Throws nothing.
void run_task(core::WorkerEnd::Task task, nanobind::handle gateway);

}  // namespace execnet::python
