// What a group does, step by step. Prints each step and its answer, checks the answer, and ends with
// status 1 if one is wrong.
//
// Set EXECNET_TOUR_SSH to the name of a host (`localhost`, say) for the step that goes over ssh.
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <execnet/execnet.hpp>
#include <iostream>
#include <string>
#include <string_view>

using namespace std::chrono_literals;

namespace {

// Prints the steps and counts those whose answer is wrong.
class Tour {
 public:
  static void section(std::string_view title) { std::cout << "\n== " << title << '\n'; }
  // A step without an answer.
  static void show(std::string_view step) { std::cout << "> " << step << '\n'; }
  // A step, its answer, and the answer it should have.
  template <typename T, typename Expected>
  void show(std::string_view step, const T& answer, const Expected& expected) {
    show(step);
    std::cout << answer << '\n';
    if (answer != expected) {
      std::cout << "  wrong: this should be " << expected << '\n';
      ++wrong_;
    }
  }
  [[nodiscard]] int wrong() const { return wrong_; }

 private:
  int wrong_ = 0;
};

bool is_running(std::int64_t pid) { return ::kill(static_cast<pid_t>(pid), 0) == 0 || errno != ESRCH; }

void membership(Tour& tour) {
  tour.section("A group owns its gateways");
  execnet::Group group{"popen", "popen"};
  tour.show(R"(execnet::Group group{"popen", "popen"})");
  tour.show("group.size()", group.size(), std::size_t{2});
  tour.show("group.repr()", group.repr(), "<Group ['gw0', 'gw1']>");
  for (const auto& gateway : group.members()) {
    tour.show("gateway.repr()", gateway.repr(),
              "<PopenGateway id='" + gateway.id() + "' receive-live, 0 active channels>");
  }
  tour.show(R"(group.contains("gw0") && group.contains("gw1"))", group.contains("gw0") && group.contains("gw1"), true);
  tour.show(R"(group["gw0"] == group[0])", group["gw0"] == group[0], true);
  tour.show(R"(group["gw1"] == group[1])", group["gw1"] == group[1], true);
  group.terminate();
  tour.show("group.terminate()");
  tour.show("group.repr()", group.repr(), "<Group []>");
}

void chosen_id(Tour& tour) {
  tour.section("An id of your own");
  execnet::Group group;
  const execnet::Gateway gateway = group.makegateway("popen//id=sub1");
  tour.show(R"_(gateway = group.makegateway("popen//id=sub1"))_");
  tour.show("gateway.id()", gateway.id(), "sub1");
  tour.show(R"(group["sub1"].repr())", group["sub1"].repr(),
            "<PopenGateway id='sub1' receive-live, 0 active channels>");
}

void allocated_id(Tour& tour) {
  tour.section("The id ahead of the gateway");
  execnet::Group group;
  execnet::XSpec spec("popen");
  group.allocate_id(spec);
  tour.show("group.allocate_id(spec)");
  const std::string allocated = spec.get("id").value_or("none");
  const execnet::Gateway gateway = group.makegateway(spec);
  tour.show("group.makegateway(spec).id()", gateway.id(), allocated);
}

void default_group(Tour& tour) {
  tour.section("The default group");
  execnet::Group& group = execnet::default_group();
  const execnet::Gateway gateway = group.makegateway();
  tour.show("gateway = execnet::default_group().makegateway()");
  tour.show("execnet::default_group().contains(gateway.id())", group.contains(gateway.id()), true);
  tour.show("execnet::default_group().defaultspec().text()", group.defaultspec().text(), "popen");
  group.terminate(1s);
}

void termination(Tour& tour) {
  tour.section("Termination with a timeout");
  execnet::Group group;
  execnet::Gateway gateway = group.makegateway("popen//id=sleeper");
  const std::int64_t pid = gateway.rinfo().pid;
  const auto channel = gateway.remote_exec("import time ; time.sleep(2.0)");
  tour.show(R"_(gateway.remote_exec("import time ; time.sleep(2.0)"))_");
  tour.show("group.repr()", group.repr(), "<Group ['sleeper']>");

  const auto before = std::chrono::steady_clock::now();
  group.terminate(1s);
  const auto took = std::chrono::steady_clock::now() - before;
  tour.show("group.terminate(1s)");
  tour.show("group.repr()", group.repr(), "<Group []>");
  tour.show("terminate took less than 1.5 s", took < 1500ms, true);
  tour.show("its process is still there", is_running(pid), false);
}

void default_specification(Tour& tour) {
  tour.section("The default specification");
  const char* host = std::getenv("EXECNET_TOUR_SSH");
  if (host == nullptr || *host == '\0') {
    std::cout << "skipped: set EXECNET_TOUR_SSH to the name of a host that ssh can log in to\n";
    return;
  }
  execnet::Group group;
  group.set_defaultspec("ssh=" + std::string(host) + "//chdir=mytmp//nice=20");
  tour.show("group.set_defaultspec(\"" + group.defaultspec().text() + "\")");
  const auto channel = group.makegateway().remote_exec(execnet::dedent(R"(
      import os.path
      basename = os.path.basename(os.getcwd())
      channel.send(basename)
  )"));
  tour.show("group.makegateway().remote_exec(...)");
  tour.show("channel.receive<std::string>()", channel.receive<std::string>(), "mytmp");
}

}  // namespace

int main() {
  std::cout << std::boolalpha;
  Tour tour;
  try {
    membership(tour);
    chosen_id(tour);
    allocated_id(tour);
    default_group(tour);
    termination(tour);
    default_specification(tour);
  } catch (const std::exception& error) {
    std::cerr << "group_tour: " << error.what() << '\n';
    return 1;
  }
  std::cout << (tour.wrong() == 0 ? "\nAll as it should be.\n" : "\nNot all is as it should be.\n");
  return tour.wrong() == 0 ? 0 : 1;
}
