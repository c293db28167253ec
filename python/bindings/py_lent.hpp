// Python objects that the core has: those whose memory is lent to it while it is written (base/rope.hpp), and
// callbacks. They come back on any thread, without the interpreter's lock; so they are put aside, and dropped the next
// time somebody who holds it comes by.
#pragma once

#include <Python.h>

#include <memory>

namespace execnet::python {

// Keeps the object, one that does not change, until what is returned goes. REQUIRES: the interpreter's lock.
std::shared_ptr<const void> lend(PyObject* object);

// Gives a reference back, or null: dropped here if the thread has the interpreter's lock, else put aside. Any thread.
void let_go(PyObject* object);

// Drops what has come back. REQUIRES: the interpreter's lock. Costs next to nothing when there is nothing.
void drop_returned();

// The same at the end of a scope in which something may come back.
struct DropsReturned {
  DropsReturned() = default;
  ~DropsReturned() { drop_returned(); }
  DropsReturned(const DropsReturned&) = delete;
  DropsReturned& operator=(const DropsReturned&) = delete;
};

}  // namespace execnet::python
