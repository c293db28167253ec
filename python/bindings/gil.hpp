// The interpreter's lock (GIL), given up and taken, such that the program can end meanwhile.
//
// When the interpreter finalizes, other threads run on until they next want its lock. From Python 3.14 on such a thread
// sleeps there for ever. Before 3.14, Python calls pthread_exit(), which unwinds the stack as an exception would. Two
// things then go wrong: a noexcept destructor of ours ends the process with SIGABRT, and others drop references to
// objects while the main thread takes the interpreter apart. So we see to it that such a thread sleeps for ever there,
// too. Each thread that comes here once gets a handler that pthread_exit() calls before it unwinds anything.
//
// It is not enough to ask whether the interpreter finalizes before taking the lock: that may begin while the thread
// waits for the lock. Nor is it enough to catch the unwinding where we take the lock. Callbacks, finalizers and other
// code of the program run above frames of ours, and take the lock, too.
//
// A thread that sleeps for ever keeps what it holds. So none of the library's mutexes is held where the lock is taken
// or code of Python runs: the end of the program needs them. And nobody waits for such a thread without a time-out.
#pragma once

#include <Python.h>

#include <functional>

namespace execnet::python {

// Whether the interpreter is about to go, or gone. Any thread, with or without the lock.
inline bool interpreter_ends() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0 || Py_IsInitialized() == 0;
#else
  return _Py_IsFinalizing() != 0 || Py_IsInitialized() == 0;
#endif
}

namespace detail {
extern constinit thread_local bool sleeps_at_end;
void sleep_at_end();
}  // namespace detail

// From now on the calling thread sleeps for ever where Python would unwind it at its end. For every call from Python
// that may run code of Python: to make an object is enough, since that may collect garbage. The classes below do it,
// and so does whoever waits. It lasts as long as the thread, since greenlets come and go in no order on its stack.
inline void sleep_at_end() {
  if (!detail::sleeps_at_end) [[unlikely]] {
    detail::sleep_at_end();
  }
}

// Gives the lock up for the rest of a scope. REQUIRES: the calling thread has it.
class WithoutGil {
 public:
  WithoutGil() {
    sleep_at_end();
    state_ = PyEval_SaveThread();
  }
  ~WithoutGil() { PyEval_RestoreThread(state_); }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

// Has the lock for the rest of a scope. Any thread, with or without the lock; without it, REQUIRES: no mutex of the
// library is held.
class WithGil {
 public:
  WithGil();
  ~WithGil() { PyGILState_Release(state_); }
  WithGil(const WithGil&) = delete;
  WithGil& operator=(const WithGil&) = delete;

 private:
  PyGILState_STATE state_;
};

// The program is about to end: from now on the memory of the interpreter's state, and of the states of the threads
// there are, is never freed. Up to Python 3.13 a thread that waits for the lock looks at both once more after they were
// freed (CPython gh-96387 has it reset a request there), and the program dies of SIGSEGV if it has not exited by then.
// Other memory is freed as before. REQUIRES: the calling thread has the lock.
void keep_states();

// A base::ThreadScope. Keeps the interpreter's state of a thread of the core for as long as the thread lives. Else each
// callback, and each task beside the main thread, would have a new state: 5 us, and no thread-local data from one to
// the next. THREAD: the one it is for, without the lock.
void with_thread_state(const std::function<void()>& body);

}  // namespace execnet::python
