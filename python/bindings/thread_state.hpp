// The interpreter's state of a thread of the core, kept for as long as the thread lives.
#pragma once

#include <nanobind/nanobind.h>

#include <functional>

namespace execnet::python {

// A base::ThreadScope. Else each callback, and each task beside the main thread, would have a new state: 5 us, and no
// thread-local data from one to the next. THREAD: the one it is for, without the GIL.
inline void with_thread_state(const std::function<void()>& body) {
  const PyGILState_STATE state = PyGILState_Ensure();
  PyThreadState* const thread = PyEval_SaveThread();
  body();
  if (nanobind::is_alive()) {  // else the state has gone with the interpreter
    PyEval_RestoreThread(thread);
    PyGILState_Release(state);
  }
}

}  // namespace execnet::python
