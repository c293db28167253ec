#include "gil.hpp"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <vector>

#if PY_VERSION_HEX < 0x030E0000 && defined(__GLIBC__)  // pthread_exit() of musl unwinds nothing
#define EXECNET_IS_UNWOUND
// The older one of two ways: what it was given, pthread_exit() calls first of all. Handlers of the macro
// pthread_cleanup_push() would be called in the course of the unwinding.
// NOLINTNEXTLINE(readability-identifier-naming): the name is glibc's
extern "C" void _pthread_cleanup_push(_pthread_cleanup_buffer* buffer, void (*handler)(void*), void* argument);
#endif

namespace execnet::python {
namespace {

[[noreturn]] void sleep_for_ever() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);  // they are for threads that go on
  for (;;) {
    ::pause();
  }
}

}  // namespace

namespace detail {

constinit thread_local bool sleeps_at_end = false;

// A handler is called when the unwinding comes to the address of its buffer. On the heap that is at once, wherever the
// stack of the thread, or of a greenlet, is.
void sleep_at_end() {
  sleeps_at_end = true;
#ifdef EXECNET_IS_UNWOUND
  thread_local const auto buffer = std::make_unique<_pthread_cleanup_buffer>();
  _pthread_cleanup_push(
      buffer.get(),
      [](void*) {
        if (interpreter_ends()) {
          sleep_for_ever();
        }
      },
      nullptr);
#endif
}

}  // namespace detail

void keep_states() {
#if PY_VERSION_HEX < 0x030E0000
  static std::vector<void*>* kept = nullptr;  // never destroyed: other threads look into it up to the very end
  static decltype(PyMemAllocatorEx::free) free_rest = nullptr;
  if (kept != nullptr) {
    return;
  }
  auto* states = new std::vector<void*>{PyInterpreterState_Get()};
  for (PyThreadState* thread = PyInterpreterState_ThreadHead(PyInterpreterState_Get()); thread != nullptr;
       thread = PyThreadState_Next(thread)) {
    states->push_back(thread);
  }
  std::ranges::sort(*states);
  kept = states;
  PyMemAllocatorEx raw{};
  PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &raw);
  free_rest = raw.free;
  // One pointer changes. Threads that allocate meanwhile, which they do without the lock, find either.
  raw.free = [](void* context, void* memory) {
    if (!std::ranges::binary_search(*kept, memory)) {
      free_rest(context, memory);
    }
  };
  PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &raw);
#endif
}

WithGil::WithGil() {
  sleep_at_end();
  if (PyGILState_GetThisThreadState() == nullptr && interpreter_ends()) {
    sleep_for_ever();  // there is nothing any more that a state could be made of
  }
  state_ = PyGILState_Ensure();
}

void with_thread_state(const std::function<void()>& body) {
  if (interpreter_ends()) {
    body();
    return;
  }
  sleep_at_end();
  const PyGILState_STATE state = PyGILState_Ensure();
  PyThreadState* const thread = PyEval_SaveThread();
  body();
  if (!interpreter_ends()) {  // else the state goes with the interpreter, and this thread ends
    PyEval_RestoreThread(thread);
    PyGILState_Release(state);
  }
}

}  // namespace execnet::python
