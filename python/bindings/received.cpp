#include "received.hpp"

#include <utility>

#include "bindings.hpp"

namespace execnet::python {
namespace {

struct Received {
  base::Buffer bytes;
};

int get_buffer(PyObject* self, Py_buffer* view, int flags) {
  base::Buffer& bytes = nb::inst_ptr<Received>(self)->bytes;
  return PyBuffer_FillInfo(view, self, bytes.data(), static_cast<Py_ssize_t>(bytes.size()), 1, flags);
}

const PyType_Slot kSlots[] = {{Py_bf_getbuffer, reinterpret_cast<void*>(get_buffer)}, {0, nullptr}};

}  // namespace

nb::object memory_of(base::Buffer bytes) {
  const nb::object owner = nb::cast(Received{std::move(bytes)});
  PyObject* const view = PyMemoryView_FromObject(owner.ptr());
  if (view == nullptr) {
    throw nb::python_error();
  }
  return nb::steal(view);
}

void bind_received(nb::module_& module) {
  nb::class_<Received>(
      module, "Received", nb::type_slots(kSlots),
      "Memory that something was received in: what the memoryviews of Channel.receive(views=True) show.");
}

}  // namespace execnet::python
