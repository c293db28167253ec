// What fork servers may do that they should not, and gateways of a C++ program. The rest:
// tests/python/test_forkserver.py.
#include "gateway/fork_server.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <execnet/error.hpp>
#include <execnet/group.hpp>
#include <functional>
#include <memory>
#include <set>
#include <string>

#include "base/syscall.hpp"
#include "elsewhere.hpp"
#include "gateway/fork_servers.hpp"
#include "process/spawn.hpp"

namespace execnet::core {
namespace {

using namespace std::chrono_literals;

constexpr int kPatienceMs = 30'000;

// A fork server that is this program; `say(kind, number=0, value=0, text=b"")` writes an answer, `hear()` reads a
// request.
transport::Launch fake(const std::string& program) {
  transport::Launch launch;
  launch.argv = {"python3", "-c", R"(
import os, socket, struct, time
control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, 3)
def say(kind, number=0, value=0, text=b""):
    control.sendall(struct.pack("=IIiI", kind, number, value, len(text)) + text)
def hear():
    data, ancillary, _, _ = control.recvmsg(8, socket.CMSG_SPACE(16))
    return struct.unpack("=II", data)
def ready():
    say(1, text=os.readlink("/proc/self/ns/pid").encode())
)" + program};
  launch.native = true;
  return launch;
}

class FakeForkServer : public ::testing::Test {
 protected:
  ~FakeForkServer() override {
    if (server_) {
      server_->close();
      server_->process().kill_tree();
      EXPECT_TRUE(server_->process().wait({.deadline = base::Clock::now() + 30s}));
      server_->finish();
    }
    loop_->stop();
  }

  std::shared_ptr<ForkedProcess> fork_from(const std::string& program) {
    server_ = ForkServer::start(fake(program), loop_);
    auto [ours, theirs] = base::socket_pair();
    stream_ = std::move(ours);
    return server_->fork(std::move(theirs));
  }

  // How it ended, once it has.
  static std::string end_of(ForkedProcess& worker) {
    pollfd entry{worker.end_fd(), POLLIN, 0};
    EXPECT_EQ(::poll(&entry, 1, kPatienceMs), 1);
    return worker.ended().value_or("not ended");
  }

  const std::shared_ptr<loop::Loop> loop_ = std::make_shared<loop::Loop>();
  std::shared_ptr<ForkServer> server_;
  base::Fd stream_;
};

TEST_F(FakeForkServer, ThatSaysNonsenseIsEnded) {
  const auto worker = fork_from("control.sendall(b'\\xff' * 64); time.sleep(1000)");
  EXPECT_EQ(end_of(*worker), "its fork server has ended: it said what cannot be understood");
  EXPECT_FALSE(server_->usable());
}

TEST_F(FakeForkServer, ThatSaysOfAPidWhatCannotBeIsEnded) {
  const auto worker = fork_from("ready(); say(2, hear()[1], -1); time.sleep(1000)");
  EXPECT_EQ(end_of(*worker), "its fork server has ended: it said what cannot be understood");
}

TEST_F(FakeForkServer, InAnotherPidNamespaceIsRefused) {
  const auto worker = fork_from("say(1, text=b'pid:[1]'); time.sleep(1000)");
  EXPECT_NE(end_of(*worker).find("another PID namespace"), std::string::npos);
}

TEST_F(FakeForkServer, ThatAnswersWhatNobodyHasAskedIsUsedOn) {
  const auto worker =
      fork_from("ready(); number = hear()[1]; say(4, 77, 0); say(2, 78, 1); say(3, number, 0, b'no'); hear()");
  EXPECT_EQ(end_of(*worker), "its fork server has not started it: no");
  EXPECT_TRUE(server_->usable());
}

TEST_F(FakeForkServer, ThatClosesItsSocketIsEnded) {
  const auto worker = fork_from("control.close(); os.closerange(3, 10); time.sleep(1000)");
  EXPECT_EQ(end_of(*worker), "its fork server has ended: killed by SIGKILL");
}

TEST_F(FakeForkServer, ThatNamesAStrangerDoesNotGetItKilled) {
  const auto bystander = process::spawn({.argv = {"sleep", "1000"}, .set_env = {}, .fds = {}});
  for (const pid_t pid : {bystander->pid(), ::getpid(), ::getppid(), pid_t{1}}) {
    const auto worker = fork_from("ready(); say(2, hear()[1], " + std::to_string(pid) + "); time.sleep(1000)");
    EXPECT_EQ(end_of(*worker),
              "its fork server has named process " + std::to_string(pid) + ", which it has not started");
    EXPECT_EQ(worker->process(), nullptr);
    EXPECT_FALSE(bystander->poll().has_value());
    server_->close();
    server_->process().kill_tree();
    EXPECT_TRUE(server_->process().wait({.deadline = base::Clock::now() + 30s}));
    server_->finish();
  }
  EXPECT_FALSE(bystander->poll().has_value());
  bystander->kill_tree();
  EXPECT_TRUE(bystander->wait({.deadline = base::Clock::now() + 30s}));
}

TEST_F(FakeForkServer, ThatNamesAThreadOrNobodyHasNoWorker) {
  const auto thread = fork_from(
      "import threading; thread = threading.Thread(target=time.sleep, args=(1000,), daemon=True);"
      "thread.start(); ready(); say(2, hear()[1], thread.native_id); time.sleep(1000)");
  EXPECT_EQ(end_of(*thread).substr(0, 24), "it cannot be watched: pi");
  EXPECT_EQ(thread->process(), nullptr);
}

TEST_F(FakeForkServer, ThatNeverSaysAStatusIsNotWaitedFor) {
  const auto worker = fork_from(R"(
ready()
number = hear()[1]
pid = os.fork()
if pid == 0:
    os._exit(3)
say(2, number, pid)
time.sleep(1000))");
  EXPECT_EQ(end_of(*worker), "exit status unknown: its fork server does not answer");
}

TEST_F(FakeForkServer, ThatTellsOfTheEndOfWhatItWasNotToWatchIsBelieved) {
  const auto worker = fork_from("ready(); say(5, hear()[1], 256 * 3); time.sleep(1000)");
  EXPECT_EQ(end_of(*worker), "exit status 3");
}

TEST_F(FakeForkServer, ThatNobodyWaitsForWhileItImportsIsEnded) {
  const auto worker = fork_from("time.sleep(1000)");
  EXPECT_NE(worker->said().find("has not yet imported"), std::string::npos);
  worker->let_go();
  EXPECT_EQ(server_->process().wait({.deadline = base::Clock::now() + 30s}), process::ExitStatus{.signal = 9});
}

TEST(ForkServer, IsSharedByTheGatewaysOfACppProgram) {
  const std::string spec = "popen//preload=json";
  Group group({spec, spec, spec});
  std::set<int> parents;
  for (const auto& gateway : group.members()) {
    EXPECT_EQ(gateway.rinfo().implementation, "pure");
    parents.insert(gateway.remote_exec("import os; channel.send(os.getppid())").receive<int>());
  }
  EXPECT_EQ(parents.size(), 1U);
  group.terminate(5s);
}

// As with an old kernel, in a sandbox, or under valgrind 3.19; a filter may say that it is not allowed.
class WithoutPidfds : public ::testing::TestWithParam<int> {
 protected:
  // What `part` has said, in a process that has none.
  static std::string without_pidfds(const std::function<std::string()>& part) {
    constexpr int kPidfdOpen = 434;
    return testing::elsewhere([&] {
      testing::refuse_system_call(kPidfdOpen, GetParam());
      return part();
    });
  }
  static std::string why_gone(const Gateway& gateway, const std::string& code) {
    try {
      gateway.remote_exec(code).waitclose(20s);
      return "not gone";
    } catch (const GatewayGone& error) {
      return error.what();
    }
  }
};

TEST_P(WithoutPidfds, AForkServerTellsOfTheEndsOfItsWorkers) {
  const std::string said = without_pidfds([] {
    const std::string spec = "popen//preload=json";
    Group group({spec, spec, spec});
    std::string text = why_gone(group[0], "import os; os._exit(7)") + "\n" +
                       why_gone(group[1], "import os; os.kill(os.getpid(), 9)") + "\n";
    return text + std::to_string(group[2].remote_exec("channel.send(41)").receive<int>(20s));
  });
  EXPECT_NE(said.find("exit status 7"), std::string::npos) << said;
  EXPECT_NE(said.find("killed by SIGKILL"), std::string::npos) << said;
  EXPECT_TRUE(said.ends_with("\n41")) << said;
}

TEST_P(WithoutPidfds, AWorkerThatDoesNotEndIsKilledByItsForkServer) {
  const std::string said = without_pidfds([] {
    const std::string spec = "popen//preload=json";
    Group group({spec, spec});
    const auto stubborn = group[0].remote_exec(
        "import os, signal\nchannel.send(1)\n"
        "os.kill(os.getpid(), signal.SIGSTOP)");
    static_cast<void>(stubborn.receive<int>(20s));
    const auto began = base::Clock::now();
    group.terminate(500ms);
    return std::string(base::Clock::now() - began < 10s ? "in time" : "late");
  });
  EXPECT_EQ(said, "in time");
}

INSTANTIATE_TEST_SUITE_P(ForkServer, WithoutPidfds, ::testing::Values(ENOSYS, EPERM));

TEST(ForkServer, NamesTheModuleThatCannotBeImported) {
  Group group;
  try {
    group.makegateway("popen//preload=no_such_module");
    FAIL();
  } catch (const HostNotFound& error) {
    EXPECT_NE(std::string(error.what()).find("No module named 'no_such_module'"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace execnet::core
