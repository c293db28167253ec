// What this process is as a worker, whether its interpreter was started for it or forked from a warm one.
//
// THREAD: the main thread of the process.
#pragma once

#include <nanobind/nanobind.h>
#include <pthread.h>

#include <atomic>
#include <memory>
#include <string>

#include "gateway/worker_end.hpp"

namespace execnet::python {

// Lives until the process is past the interpreter's finalisation, which its timers cut short if it hangs; only then,
// with the statics, the loop thread is stopped and joined.
struct WorkerProcess {
  std::shared_ptr<core::WorkerEnd> end;
  nanobind::handle gateway;                // as the code that runs here sees it, while tasks run
  bool serves = false;                     // HELLO was said
  std::atomic<bool> has_run_code = false;  // of the coordinator's

  ~WorkerProcess();
  // Takes the stream, on which the coordinator's HELLO comes.
  void open(int stream_fd);

 private:
  void begin_task();  // THREAD: any, without the GIL

  pthread_t main_thread_{};
};
WorkerProcess& worker_process();

// --- Steps of a worker's start. Those that touch Python need the GIL. ---

// Makes `import execnet` find the package that has this module.
void make_package_importable(nanobind::handle module);
// Where a fatal signal came from is told to the coordinator, which keeps the other end of what is the stderr until
// HELLO. Returns the descriptor this is written to; -1 if somebody else wants these reports.
int report_crashes();
// What a HELLO says, without the pid: the process may be forked after this call.
core::WorkerInfo introduce();
// Descriptor 2 becomes the coordinator's stderr, then all three what is wanted.
void take_streams(const core::StandardStreams& wanted, int stderr_fd);

}  // namespace execnet::python
