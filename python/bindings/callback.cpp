#include "callback.hpp"

#include <exception>
#include <optional>
#include <string>
#include <utility>

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

  ~PythonCallback() override {
    if (!nb::is_alive()) {  // a callback that never came to its end: the interpreter has
      static_cast<void>(gateway_.release());
      static_cast<void>(function_.release());
      static_cast<void>(endmarker_.release());
      return;
    }
    const nb::gil_scoped_acquire gil;
    gateway_.reset();
    function_.reset();
    endmarker_.reset();
  }

  std::optional<std::string> on_item(base::Buffer payload, StringConfig strings) override {
    const nb::gil_scoped_acquire gil;
    try {
      function_(decode_from(connection_, gateway_, payload, strings));
      return std::nullopt;
    } catch (const std::exception& error) {
      return text_of(error);
    }
  }

  void on_end() override {
    const nb::gil_scoped_acquire gil;
    if (!endmarker_.is_valid()) {
      return;
    }
    try {
      function_(endmarker_);
    } catch (nb::python_error& error) {
      error.discard_as_unraisable(function_);  // nobody is left to be told
    }
  }

 private:
  core::Connection& connection_;  // outlives the dispatcher thread, which it owns
  nb::object gateway_;
  nb::object function_;
  nb::object endmarker_;  // null: not wanted
};

}  // namespace

std::shared_ptr<core::Callback> make_callback(const PyChannel& channel, nb::object function, nb::object endmarker) {
  return std::make_shared<PythonCallback>(channel.handle->connection(), channel.gateway, std::move(function),
                                          std::move(endmarker));
}

}  // namespace execnet::python
