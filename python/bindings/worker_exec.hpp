// Runs what remote_exec sends. The same as class Executor of worker/execnet_worker/execution.py, which says it in
// Python.
#pragma once

#include <nanobind/nanobind.h>

#include <optional>
#include <string>

#include "gateway/worker_end.hpp"

namespace execnet::python {

// Runs a task to its end; returns the text of what it raised, if anything. `gateway` is what its channels refer to.
// THREAD: any, without the GIL. Throws nothing.
std::optional<std::string> run_task(const core::WorkerEnd::Task& task, nanobind::handle gateway);

// sys.stdout or sys.stderr, whatever code has made of it. THREAD: needs the GIL. Throws nothing.
void flush(const char* name);

}  // namespace execnet::python
