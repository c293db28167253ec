// What execnet.rsync stands on: the two steps of the core, with Python's objects for the calls back.
#include "rsync/rsync_send.hpp"

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bindings.hpp"
#include "channel.hpp"
#include "gateway.hpp"
#include "gil.hpp"
#include "green.hpp"

namespace execnet::python {
namespace {

nb::object start_rsync_target(nb::handle_t<PyGateway> gateway) {
  const auto end = nb::cast<const PyGateway&>(gateway).gateway.end();
  std::shared_ptr<core::ChannelHandle> channel;
  {
    const base::Wait wait = wait_for(*end->connection());
    const WithoutGil nogil;
    channel = core::start_rsync_target(*end, wait);
  }
  return make_channel(std::move(channel), gateway);
}

// Calls the methods of a Python object of the same names. It needs no reference of its own: the caller
// of send_tree() waits.
class PythonObserver final : public core::RSyncObserver {
 public:
  explicit PythonObserver(nb::handle object) : object_(object) {}

  bool filter(const std::string& path) override {
    const WithGil gil;
    const nb::object wanted = object_.attr("filter")(nb::bytes(path.data(), path.size()));
    const int truth = PyObject_IsTrue(wanted.ptr());
    if (truth < 0) {
      throw nb::python_error();
    }
    return truth != 0;
  }
  void on_list(std::size_t target, std::uint64_t bytes) override { call("on_list", target, bytes); }
  void on_send_file(std::size_t target, const std::string& relative) override {
    const WithGil gil;
    object_.attr("on_send_file")(target, nb::bytes(relative.data(), relative.size()));
  }
  void on_ack(std::size_t target, std::uint64_t bytes) override { call("on_ack", target, bytes); }
  void on_finished(std::size_t target) override {
    const WithGil gil;
    object_.attr("on_finished")(target);
  }
  void on_unreadable(const std::string& path) override {
    const WithGil gil;
    object_.attr("on_unreadable")(nb::bytes(path.data(), path.size()));
  }

 private:
  void call(const char* name, std::size_t target, std::uint64_t bytes) {
    const WithGil gil;
    object_.attr(name)(target, bytes);
  }

  const nb::handle object_;
};

// The first who has something called back decides where the program's callbacks run, too: in a program of
// greenlets not on a thread.
void run_callbacks_as(const base::Wait& wait, core::Connection& connection) {
  if (wait.hub == nullptr) {
    return;
  }
  bool in_greenlet = false;
  {
    const WithoutGil nogil;
    auto lock = connection.lock();
    in_greenlet = connection.dispatcher().start(lock, true);
  }
  if (in_greenlet) {
    spawn_dispatcher(*wait.hub, connection);
  }
}

void send_tree(const nb::bytes& source, const nb::list& targets, const nb::object& observer, nb::handle timeout) {
  sleep_at_end();
  std::vector<core::RSyncTarget> to;
  for (const nb::handle target : targets) {
    const auto destination = nb::cast<nb::bytes>(target[1]);
    const nb::handle object = target[0];
    const auto& channel = nb::cast<const PyChannel&>(object);
    to.push_back({channel.handle,
                  nb::cast<std::string>(nb::handle(channel.gateway).attr("id")),
                  {.path = {destination.c_str(), destination.size()},
                   .delete_others = nb::cast<bool>(target[2]),
                   .set_ids = nb::cast<bool>(target[3])}});
  }
  const std::string path(source.c_str(), source.size());
  PythonObserver calls(observer);
  base::Wait wait = wait_for(nullptr, timeout);
  for (const core::RSyncTarget& target : to) {
    wait = wait.hub != nullptr ? wait : wait_for(target.channel->connection()).until(wait.deadline);
    run_callbacks_as(wait, target.channel->connection());
  }
  const WithoutGil nogil;
  core::send_tree(path, to, calls, wait);
}

}  // namespace

void bind_rsync(nb::module_& module) {
  module.def("start_rsync_target", &start_rsync_target, nb::arg("gateway"),
             nb::sig("def start_rsync_target(gateway: Gateway) -> Channel"),
             "Starts the receiving side of RSync; the channel is for send_tree().");
  module.def(
      "send_tree", &send_tree, nb::arg("source"), nb::arg("targets"), nb::arg("observer"),
      nb::arg("timeout").none() = nb::none(),
      nb::sig("def send_tree(source: bytes, targets: list[tuple[Channel, bytes, bool, bool]], observer: "
              "execnet.rsync._Observer, timeout: float | None = None) -> None"),
      "Copies a directory or a file. A target is a channel, a destination, whether to remove what else is there,\n"
      "and whether set-id bits go along. The observer is called with the position of the target.");
}

}  // namespace execnet::python
