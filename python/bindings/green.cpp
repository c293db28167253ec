#include "green.hpp"

#include <nanobind/stl/string.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include "bindings.hpp"
#include "gil.hpp"
#include "interrupt.hpp"

namespace execnet::python {
namespace {

// The interpreter is about to end, and with it the hubs: from then on every wait blocks its thread.
bool hubs_are_over = false;

class PyHub final : public base::Hub {
 public:
  explicit PyHub(nb::object hub)
      : hub_(std::move(hub)), current_(hub_.attr("current")), wait_readable_(hub_.attr("wait_readable")) {}

  [[nodiscard]] const nb::object& object() const { return hub_; }

  // What keeps Python objects would keep the interpreter from taking its modules apart.
  void end() {
    hub_.reset();
    current_.reset();
    wait_readable_.reset();
  }

  // The running greenlet; null where there are none.
  [[nodiscard]] const void* current() const {
    const bool in_main_thread = ::gettid() == ::getpid();
    return PyLong_AsVoidPtr(current_(in_main_thread).ptr());  // as id() made it
  }

  void wait_readable(int fd, const base::Deadline& deadline) const override {
    const WithGil gil;
    const nb::object wait = wait_readable_;
    if (!wait.is_valid()) {  // in a thread that outlives the program
      const WithoutGil nogil;
      pollfd entry{fd, POLLIN, 0};
      base::poll_until({&entry, 1}, {.deadline = deadline});
      return;
    }
    nb::object seconds = nb::none();
    if (deadline) {
      seconds = nb::float_(std::max(0.0, base::Seconds(*deadline - base::Clock::now()).count()));
    }
    wait(fd, seconds);
  }

 private:
  nb::object hub_;
  nb::object current_;
  nb::object wait_readable_;
};

// Made when first wanted, and never destroyed: connections refer to them.
PyHub* gevent_hub = nullptr;
PyHub* eventlet_hub = nullptr;

const PyHub* known_hub(std::string_view execmodel) {
  sleep_at_end();
  PyHub*& hub = execmodel == "gevent" ? gevent_hub : eventlet_hub;
  if (hub == nullptr) {
    const nb::str name(execmodel.data(), execmodel.size());
    hub = new PyHub(nb::module_::import_("execnet._green").attr("hub_of")(name));
  }
  return hub;
}

bool is_imported(nb::handle modules, const char* name) { return PyDict_GetItemString(modules.ptr(), name) != nullptr; }

// The hub of whom the process was monkey-patched by, which may happen at any time; null if by nobody.
// Called before every wait: while nothing is imported, nobody has.
const PyHub* patched_hub() {
  static const PyHub* known = nullptr;
  static Py_ssize_t imported_before = 0;
  static bool can_be_patched = false;
  if (known != nullptr) {
    return known;
  }
  const nb::handle modules = PyImport_GetModuleDict();
  if (const Py_ssize_t imported = PyDict_Size(modules.ptr()); imported != imported_before) {
    imported_before = imported;
    can_be_patched = is_imported(modules, "gevent.monkey") || is_imported(modules, "eventlet.patcher");
  }
  if (can_be_patched) {
    const nb::object execmodel = nb::module_::import_("execnet._green").attr("patched_by")();
    known = execmodel.is_none() ? nullptr : known_hub(nb::cast<std::string>(execmodel));
  }
  return known;
}

}  // namespace

const base::Hub* hub_of(const std::string& execmodel) {
  return execmodel == "gevent" || execmodel == "eventlet" ? known_hub(execmodel) : nullptr;
}

base::Wait wait_for(const base::Hub* hub, nb::handle timeout) {
  base::Wait wait = wait_for(timeout);
  const auto* wanted = hubs_are_over ? nullptr : hub != nullptr ? static_cast<const PyHub*>(hub) : patched_hub();
  if (wanted != nullptr) {
    wait.greenlet = wanted->current();
    wait.hub = wait.greenlet != nullptr ? wanted : nullptr;
  }
  return wait;
}

void spawn_dispatcher(const base::Hub& hub, core::Connection& connection) {
  as_python(hub).attr("spawn")(nb::cpp_function([&hub, connection = connection.shared_from_this()] {
    const base::Wait wait = wait_for(&hub);
    const WithoutGil nogil;
    connection->dispatcher().run_in_greenlet(wait);
  }));
}

nb::object as_python(const base::Hub& hub) { return static_cast<const PyHub&>(hub).object(); }

void bind_green(nb::module_& module) {
  module.def(
      "end_greenlets",
      [] {
        hubs_are_over = true;
        for (PyHub* hub : {gevent_hub, eventlet_hub}) {
          if (hub != nullptr) {
            hub->end();
          }
        }
      },
      "For the end of the interpreter: from now on calls that wait block their thread.");
}

}  // namespace execnet::python
