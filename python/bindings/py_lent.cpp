#include "py_lent.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "gil.hpp"

namespace execnet::python {
namespace {

struct Returned {
  std::atomic<bool> any{false};
  std::mutex mutex;
  std::vector<PyObject*> objects;
};

// Never destroyed: threads of the core may outlive main(). Where destructors call it there may be no memory.
Returned& returned() noexcept {
  alignas(Returned) static std::array<std::byte, sizeof(Returned)> space;
  static auto* const all = new (space.data()) Returned;
  return *all;
}

void put_aside(PyObject* object) {
  Returned& all = returned();
  const std::lock_guard lock(all.mutex);
  try {
    all.objects.push_back(object);
    all.any.store(true, std::memory_order_relaxed);
  } catch (const std::bad_alloc&) {
    // It stays for ever. It cannot be dropped here, and nobody could be told.
  }
}

}  // namespace

std::shared_ptr<const void> lend(PyObject* object) {
  Py_INCREF(object);
  return {object, [](const void* lent) { put_aside(static_cast<PyObject*>(const_cast<void*>(lent))); }};
}

void let_go(PyObject* object) {
  if (object == nullptr) {
    return;
  }
  if (!interpreter_ends() && PyGILState_Check() != 0) {
    Py_DECREF(object);
  } else {
    put_aside(object);
  }
}

void drop_returned() {
  Returned& all = returned();
  if (!all.any.load(std::memory_order_relaxed)) {
    return;
  }
  std::vector<PyObject*> objects;
  {
    const std::lock_guard lock(all.mutex);
    objects.swap(all.objects);
    all.any.store(false, std::memory_order_relaxed);
  }
  for (PyObject* object : objects) {
    Py_DECREF(object);
  }
}

}  // namespace execnet::python
