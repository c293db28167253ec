#include "callback.hpp"

#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "gil.hpp"
#include "py_lent.hpp"
#include "text.hpp"

namespace execnet::python {
namespace {

class PythonCallback final : public core::Callback {
 public:
  PythonCallback(core::Connection& connection, nb::object gateway, nb::object function, nb::object endmarker)
      : connection_(connection),
        gateway_(std::move(gateway)),
        function_(std::move(function)),
        endmarker_(std::move(endmarker)) {}

  // Mostly there is nothing left by then. What there is may go on a thread that must not wait for the interpreter, the
  // loop's, say.
  ~PythonCallback() override {
    for (nb::object* object : {&gateway_, &function_, &endmarker_}) {
      let_go(object->release().ptr());
    }
  }

  std::optional<std::string> on_item(base::Buffer payload, StringConfig strings) override {
    if (interpreter_ends()) {
      return std::nullopt;
    }
    const WithGil gil;
    try {
      function_(decode_from(connection_, gateway_, payload, strings));
      return std::nullopt;
    } catch (const std::exception& error) {
      return text_of(error);
    }
  }

  void on_end() override {
    if (interpreter_ends()) {
      return;
    }
    const WithGil gil;
    const nb::object function = std::move(function_);
    const nb::object endmarker = std::move(endmarker_);
    const nb::object gateway = std::move(gateway_);
    if (!endmarker.is_valid()) {
      return;
    }
    try {
      function(endmarker);
    } catch (nb::python_error& error) {
      error.discard_as_unraisable(function);  // nobody is left to be told
    }
  }

 private:
  core::Connection& connection_;  // outlives the dispatcher thread, which it owns
  nb::object gateway_;
  nb::object function_;
  nb::object endmarker_;  // null: not wanted
};

// Until the worker is gone; as with ~PythonCallback().
struct OutputFunction {
  nb::object function;

  explicit OutputFunction(nb::object given) : function(std::move(given)) {}
  OutputFunction(const OutputFunction&) = delete;
  OutputFunction& operator=(const OutputFunction&) = delete;
  ~OutputFunction() { let_go(function.release().ptr()); }
};

}  // namespace

core::WorkerOutput::Take make_output(nb::object function) {
  return [held = std::make_shared<OutputFunction>(std::move(function))](std::string_view text) {
    if (interpreter_ends()) {
      return true;
    }
    const WithGil gil;
    if (text.empty()) {
      held->function.reset();
      return true;
    }
    try {
      const nb::object decoded =
          nb::steal(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
      if (!decoded.is_valid()) {
        throw nb::python_error();
      }
      held->function(decoded);
      return true;
    } catch (nb::python_error& error) {
      error.discard_as_unraisable(held->function);
      held->function.reset();
      return false;
    }
  };
}

std::shared_ptr<core::Callback> make_callback(const PyChannel& channel, nb::object function, nb::object endmarker) {
  return std::make_shared<PythonCallback>(channel.handle->connection(), channel.gateway, std::move(function),
                                          std::move(endmarker));
}

}  // namespace execnet::python
