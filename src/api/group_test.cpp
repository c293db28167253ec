// Groups of real interpreters (the pure worker), through the public headers.
#include <execnet/group.hpp>

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <execnet/execnet.hpp>
#include <map>
#include <stdexcept>
#include <thread>

#include "base/fd.hpp"
#include "process/pidfd.hpp"
#include "processes.hpp"

namespace execnet {
namespace {

using namespace std::chrono_literals;

std::size_t open_descriptors() {
  std::size_t count = 0;
  DIR* directory = ::opendir("/proc/self/fd");
  while (::readdir(directory) != nullptr) {
    ++count;
  }
  ::closedir(directory);
  return count;
}

bool is_running(std::int64_t pid) { return ::kill(static_cast<pid_t>(pid), 0) == 0; }

double seconds_for(const std::function<void()>& what) {
  const auto begin = std::chrono::steady_clock::now();
  what();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

TEST(Group, StartsAnInterpreterWhateverStandsBeforeIt) {
  for (const char* before : {"", "env ", "sh -c 'exec 3<&-; exec \"$0\" \"$@\"' ",
                             "sh -c 'echo hello; exec \"$0\" \"$@\"' ", "sh -c 'cat | \"$0\" \"$@\" | cat' "}) {
    Group group{"popen//id=proxy"};
    for (const char* where : {"", "//via=proxy"}) {
      const auto gateway = group.makegateway(std::string("popen//python=") + before + "python3" + where);
      const auto channel = gateway.remote_exec("print('not into the stream'); channel.send(channel.receive())");
      channel.send(std::string(1'000'000, 'x'));
      EXPECT_EQ(channel.receive<std::string>().size(), 1'000'000U) << before << where;
      channel.waitclose();
    }
    group.terminate(Seconds(0.5));  // the first cat reads on
  }
}

TEST(Group, AMemberMayTakeAsLongToStartAsItsConnectTimeoutSays) {
  try {
    Group group{"popen", "popen//python=sh -c 'sleep 1000'//connect_timeout=0.5//id=late"};
    ADD_FAILURE() << "it has started";
  } catch (const HostNotFound& error) {
    EXPECT_NE(std::string(error.what()).find("did not answer within 0.5 seconds"), std::string::npos) << error.what();
  }
}

TEST(Group, StartsRunsAnswersAndTerminates) {
  Group group{"popen", "popen//id=named"};
  EXPECT_EQ(group.repr(), "<Group ['gw0', 'named']>");
  EXPECT_EQ(group[0].repr(), "<PopenGateway id='gw0' receive-live, 0 active channels>");
  EXPECT_TRUE(group.contains("named"));
  EXPECT_EQ(group["named"], group[1]);
  const auto channels = group.remote_exec("channel.send(channel.receive() + 1)");
  channels.send_each(41);
  EXPECT_EQ(channels.receive_each<int>(), (std::vector<int>{42, 42}));
  channels.waitclose();
  const std::int64_t pid = group[0].rinfo().pid;
  EXPECT_TRUE(is_running(pid));
  group.terminate();
  EXPECT_EQ(group.size(), 0U);
  EXPECT_FALSE(is_running(pid));
}

TEST(Group, AFunctionTakesWhatAWorkerPrints) {
  std::string said;
  std::string others;
  Group group;
  const auto gateway = group.makegateway("popen//stdout=null", [&](std::string_view text) { said += text; });
  const auto both = group.makegateways({"popen", "popen"}, {[&](std::string_view text) { others += text; }});
  gateway.remote_exec("import os; print('one', 2); os.system('echo three'); os.write(1, b'last')").waitclose(60s);
  both[0].remote_exec("print('heard')").waitclose(60s);
  EXPECT_THROW(static_cast<void>(group.makegateway("popen//stdout=callback")), SpecError);
  EXPECT_THROW(static_cast<void>(group.makegateway("ssh=host", [](std::string_view) {})), SpecError);
  EXPECT_EQ(group.size(), 3U);
  group.terminate(20s);
  EXPECT_EQ(said, "one 2\nthree\nlast");
  EXPECT_EQ(others, "heard\n");
}

TEST(Group, AFunctionThatThrowsIsNotCalledAgain) {
  int calls = 0;
  Group group;
  const auto gateway = group.makegateway("popen", [&](std::string_view) {
    ++calls;
    throw std::runtime_error("no more, please");
  });
  ::testing::internal::CaptureStderr();
  gateway.remote_exec("for i in range(100): print('x' * 9999)").waitclose(60s);
  group.terminate(20s);
  EXPECT_EQ(calls, 1);
  EXPECT_NE(::testing::internal::GetCapturedStderr().find("what gateway gw0 prints has failed: no more, please"),
            std::string::npos);
}

TEST(Group, LeavesNoDescriptorBehind) {
  {
    const Group warm_up{"popen"};
  }
  const std::size_t before = open_descriptors();
  {
    Group group{"popen", "popen"};
    auto channel = group[0].remote_exec("channel.send(1)");
    EXPECT_EQ(channel.receive<int>(), 1);
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Group, ReachesGatewaysThroughOthersAndOverSockets) {
  Group group{"popen//id=near", "popen//via=near//id=far", "popen//via=far", "socket//installvia=near"};
  EXPECT_EQ(group["gw0"].repr(), "<PopenGateway id='gw0' receive-live, 0 active channels>");
  EXPECT_EQ(group[3].repr(), "<SocketGateway id='gw1' receive-live, 0 active channels>");
  std::vector<std::int64_t> pids;
  std::vector<std::int64_t> starters;
  for (const auto& gateway : group.members()) {
    pids.push_back(gateway.rinfo().pid);
    starters.push_back(testing::starter_of(static_cast<pid_t>(gateway.rinfo().pid)));
  }
  EXPECT_EQ(starters, (std::vector<std::int64_t>{::getpid(), pids[0], pids[1], pids[0]}));
  EXPECT_LT(seconds_for([&] { group.terminate(100s); }), 50);
  for (const std::int64_t pid : pids) {
    EXPECT_FALSE(is_running(pid));
  }
}

TEST(Group, RefusesAProxyItDoesNotHaveBeforeAnythingIsStarted) {
  EXPECT_THROW((Group{"popen//via=nobody"}), SpecError);
  EXPECT_THROW((Group{"popen//via=later", "popen//id=later"}), SpecError);
}

TEST(Group, PassesArgumentsAndReportsErrorsWithTheirLines) {
  Group group{"popen"};
  const Source source = function(dedent(R"(
      def area(channel, width, height):
          channel.send(width * height)
          raise ValueError("enough")
      )"),
                                 "area");
  const Channel channel = group[0].remote_exec(source, Dict{{"width", 6}, {"height", 7}});
  EXPECT_EQ(channel.receive<int>(), 42);
  try {
    channel.waitclose();
    FAIL() << "did not throw";
  } catch (const RemoteError& error) {
    EXPECT_NE(std::string(error.what()).find("ValueError: enough"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("line 4, in area"), std::string::npos) << error.what();
  }
}

TEST(Group, RefusesBadSpecificationsBeforeAnythingIsStarted) {
  Group group{"popen//id=a"};
  EXPECT_THROW(group.makegateway(XSpec("popen//id=a")), SpecError);
  EXPECT_THROW(group.makegateways({"popen//id=b", "popen//id=b"}), SpecError);
  EXPECT_THROW(group.makegateways({"popen", "nosuchtype=1"}), SpecError);
  EXPECT_EQ(group.repr(), "<Group ['a']>");
  EXPECT_THROW(static_cast<void>(group["b"]), UnknownGateway);
  EXPECT_THROW(static_cast<void>(group[5]), UnknownGateway);
}

TEST(Group, WhenOneMemberCannotStartNoneStays) {
  Group group;
  try {
    group.makegateways({"popen", "popen//python=/bin/false", "popen"});
    FAIL() << "did not throw";
  } catch (const HostNotFound& error) {
    EXPECT_NE(std::string(error.what()).find("exit status 1"), std::string::npos) << error.what();
  }
  EXPECT_EQ(group.size(), 0U);
}

TEST(Group, AllocatesIdsAheadAndAcceptsThem) {
  Group group;
  XSpec spec("popen");
  group.allocate_id(spec);
  EXPECT_EQ(spec.get("id"), "gw0");
  group.allocate_id(spec);
  EXPECT_EQ(spec.get("id"), "gw0");
  EXPECT_EQ(group.makegateway(spec).id(), "gw0");
  EXPECT_EQ(group.makegateway().id(), "gw1");
}

TEST(Group, TerminatesAMemberThatIgnoresEverythingInItsTime) {
  Group group{"popen"};
  const Channel channel = group[0].remote_exec(dedent(R"(
      import signal
      signal.signal(signal.SIGTERM, signal.SIG_IGN)
      signal.signal(signal.SIGINT, signal.SIG_IGN)
      channel.send(1)
      while True:
          pass
      )"));
  EXPECT_EQ(channel.receive<int>(), 1);
  const std::int64_t pid = group[0].rinfo().pid;
  const base::Fd end = process::pidfd_open(static_cast<pid_t>(pid));
  EXPECT_LT(seconds_for([&] { group.terminate(1s); }), 30);  // how exactly is measured in ending_test.cpp
  pollfd gone{end.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&gone, 1, 30'000), 1);
  EXPECT_THROW(static_cast<void>(channel.receive()), GatewayGone);
}

// Has a process of its own make the group, and kills that once the code says so. Returns what the code has written to
// the pipe `out` when nobody holds that any more.
std::string said_after_the_end_of(const std::function<void(Group&)>& make, const Source& code) {
  std::string directory = "/tmp/execnet-group-XXXXXX";
  EXPECT_NE(::mkdtemp(directory.data()), nullptr);
  const std::string path = directory + "/out";
  EXPECT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const base::Fd out(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  const pid_t coordinator = ::fork();
  if (coordinator == 0) {
    Group group;
    make(group);
    group[0].remote_exec(code).send(path);
    for (;;) {
      ::pause();
    }
  }
  std::string said;
  for (ssize_t size = 1; size > 0;) {
    pollfd more{out.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&more, 1, 60'000), 1) << said;
    char bytes[64];
    size = ::read(out.get(), bytes, sizeof bytes);
    said.append(bytes, static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
    if (said == "ready ") {
      ::kill(coordinator, SIGKILL);
      EXPECT_EQ(::waitpid(coordinator, nullptr, 0), coordinator);
      said += "killed ";
    }
  }
  ::unlink(path.c_str());
  ::rmdir(directory.c_str());
  return said;
}

Source reacts() {
  return dedent(R"(
    import os, time
    out = os.open(channel.receive(), os.O_WRONLY)
    try:
        os.write(out, b"ready ")
        time.sleep(1000)
    finally:
        time.sleep(0.5)
        os.write(out, b"clean")
    )");
}

TEST(Group, CodeThatReactsToTheEndOfTheProgramHasTheGraceOfTheSpecificationOrTheGroup) {
  EXPECT_EQ(said_after_the_end_of([](Group& group) { group.makegateway("popen//grace=60"); }, reacts()),
            "ready killed clean");
  const auto make = [](Group& group) {
    group.set_grace(60s);
    group.makegateway("popen");
  };
  EXPECT_EQ(said_after_the_end_of(make, reacts()), "ready killed clean");
  const auto override = [](Group& group) {
    group.set_grace(60s);
    group.makegateway("popen//grace=0");
  };
  EXPECT_EQ(said_after_the_end_of(override, reacts()), "ready killed ");
}

TEST(Group, ItsGraceIsANumberOfSeconds) {
  Group group;
  EXPECT_EQ(group.grace(), 1s);
  group.set_grace(Seconds(0.25));
  EXPECT_EQ(group.grace(), 250ms);
  for (const double seconds : {-1.0, std::nan(""), 1e7, HUGE_VAL}) {
    EXPECT_THROW(group.set_grace(Seconds(seconds)), SpecError) << seconds;
  }
  EXPECT_EQ(group.grace(), 250ms);
}

TEST(Group, WhatIsDetachedOutlivesItsWorkerOnRequest) {
  for (const bool keep : {true, false}) {
    Group group{XSpec(keep ? "popen//detached=keep" : "popen")};
    const Channel channel = group[0].remote_exec(dedent(R"(
        import subprocess
        for detached in (True, False):
            channel.send(subprocess.Popen(["sleep", "1000"], start_new_session=detached).pid)
        )"));
    const auto detached = channel.receive<std::int64_t>();
    const auto attached = channel.receive<std::int64_t>();
    group.terminate(20s);
    EXPECT_FALSE(is_running(attached));
    EXPECT_EQ(is_running(detached), keep);
    if (keep) {
      ::kill(static_cast<pid_t>(detached), SIGKILL);
    }
  }
}

TEST(Group, ADeadWorkerIsExplainedToWhoeverWaits) {
  Group group{"popen"};
  const Channel channel = group[0].remote_exec("channel.send(1); channel.receive()");
  EXPECT_EQ(channel.receive<int>(), 1);
  ::kill(static_cast<pid_t>(group[0].rinfo().pid), SIGKILL);
  try {
    static_cast<void>(channel.receive(20s));
    FAIL() << "did not throw";
  } catch (const GatewayGone& error) {
    EXPECT_NE(std::string(error.what()).find("killed by SIGKILL"), std::string::npos) << error.what();
  }
  group[0].join(20s);
  EXPECT_FALSE(group[0].hasreceiver());
  EXPECT_THROW(group[0].remote_exec("pass"), GatewayGone);
  group[0].exit();
}

TEST(Group, AQueueTakesTheItemsOfAllMembersAndTheirEnds) {
  Group group{"popen", "popen"};
  const auto channels = group.remote_exec("channel.send(channel.gateway.id); channel.send(2)");
  const ReceiveQueue queue = channels.make_receive_queue();
  std::map<std::uint32_t, std::size_t> ends;
  std::vector<Value> items;
  for (int i = 0; i < 6; ++i) {
    if (const auto item = queue.get(20s); item.value) {
      items.push_back(*item.value);
    } else {
      EXPECT_EQ(item.channel.take_error(), nullptr);
      ++ends[item.channel.id()];
    }
  }
  EXPECT_EQ(std::count(items.begin(), items.end(), Value(2)), 2);
  EXPECT_EQ(std::count(items.begin(), items.end(), Value("gw1-worker")), 1);
  EXPECT_TRUE(queue.empty());
  EXPECT_THROW(static_cast<void>(queue.get(0s)), TimeoutError);
}

// A member that is gone before the call, or in the middle of it, takes nothing of the others along.
class DeadMember : public ::testing::Test {
 protected:
  // The partial result that the call, which fails, throws.
  template <typename Thrown, typename Call>
  static Partial partial_of(Call&& call) {
    try {
      call();
    } catch (const Thrown& error) {
      if (error.partial()) {
        return *error.partial();
      }
    }
    ADD_FAILURE() << "nothing that has a partial result was thrown";
    return {};
  }
  void kill(int member) {
    ::kill(static_cast<pid_t>(group[member].pid()), SIGKILL);
    group[member].join(20s);
  }
  using Channels = std::vector<Channel>;

  Group group{"popen", "popen", "popen"};
};

TEST_F(DeadMember, LeavesTheChannelsThatRemoteExecHasMade) {
  kill(1);
  const Partial partial = partial_of<GatewayGone>([&] { group.remote_exec("channel.send(channel.receive() + 1)"); });
  ASSERT_EQ(partial.channels.size(), 1U);
  partial.channels[0].send(41);
  EXPECT_EQ(partial.channels[0].receive<int>(20s), 42);
}

TEST_F(DeadMember, LeavesWhatWasReceived) {
  const MultiChannel channels = group.remote_exec("for item in channel: channel.send(item)");
  channels.send_each("a");
  EXPECT_EQ(channels.receive_each<std::string>(), (std::vector<std::string>{"a", "a", "a"}));
  channels[0].send("b");
  channels[2].send("b");
  kill(1);
  const Partial partial = partial_of<GatewayGone>([&] { static_cast<void>(channels.receive_each()); });
  EXPECT_EQ(partial.channels, Channels{channels[0]});
  ASSERT_EQ(partial.received.size(), 1U);
  EXPECT_EQ(partial.received[0].first, channels[0]);
  EXPECT_EQ(partial.received[0].second, Value("b"));
  EXPECT_EQ(channels[2].receive<std::string>(20s), "b") << "those behind it keep theirs";
}

TEST_F(DeadMember, LeavesAllOfAnItemThatIsOfAnotherType) {
  const MultiChannel channels = group.remote_exec("channel.send('x' if '1' in channel.gateway.id else 1)");
  const Partial partial = partial_of<DataFormatError>([&] { static_cast<void>(channels.receive_each<int>()); });
  ASSERT_EQ(partial.received.size(), 3U);
  EXPECT_EQ(partial.received[1].second, Value("x"));
  EXPECT_EQ(partial.received[2].second, Value(1));
}

TEST_F(DeadMember, LeavesItKnownWhomAnItemWasSentTo) {
  const MultiChannel channels = group.remote_exec("channel.send(channel.receive())");
  kill(1);
  EXPECT_EQ(partial_of<GatewayGone>([&] { channels.send_each(1); }).channels, Channels{channels[0]});
  EXPECT_EQ(channels[0].receive<int>(20s), 1);
}

TEST_F(DeadMember, LeavesItKnownWhoHasClosedWell) {
  const MultiChannel channels = group.remote_exec("channel.receive()");
  kill(1);
  channels[0].send(1);
  channels[2].send(1);
  EXPECT_EQ(partial_of<GatewayGone>([&] { channels.waitclose(); }).channels, (Channels{channels[0], channels[2]}));
}

TEST_F(DeadMember, AQueueThatIsMadeInPartIsNotLost) {
  const MultiChannel channels = group.remote_exec("channel.send(1); channel.receive()");
  channels[1].setcallback([](const Value&) {});
  const Partial partial = partial_of<StateError>([&] { static_cast<void>(channels.make_receive_queue()); });
  EXPECT_EQ(partial.channels, Channels{channels[0]});
  ASSERT_TRUE(partial.queue);
  EXPECT_EQ(partial.queue->get(20s).value, Value(1));
}

TEST(Group, TerminateSaysWhetherAllHaveEndedByThemselves) {
  Group group{"popen", "popen"};
  const auto busy = group.remote_exec("channel.receive()");
  EXPECT_TRUE(group.terminate(20s));
  EXPECT_TRUE(group.terminate(20s)) << "there is nobody";
  const Gateway stopped = group.makegateway("popen");
  group.makegateway("popen");
  ::kill(static_cast<pid_t>(stopped.pid()), SIGSTOP);
  EXPECT_FALSE(group.terminate(500ms));
  EXPECT_EQ(stopped.returncode(), -SIGKILL);
}

TEST(Group, AGatewayHasAPidAndAfterItsEndAReturncode) {
  Group group{"popen//id=proxy", "popen//via=proxy//id=behind", "popen//id=killed"};
  for (const Gateway& gateway : group.members()) {
    EXPECT_EQ(gateway.remote_exec("import os; channel.send(os.getpid())").receive<std::int64_t>(), gateway.pid());
    EXPECT_EQ(gateway.returncode(), std::nullopt) << gateway.id();
  }
  ::kill(static_cast<pid_t>(group["killed"].pid()), SIGKILL);
  group["killed"].join(20s);
  EXPECT_EQ(group["killed"].returncode(), -SIGKILL);
  const Gateway behind = group["behind"];
  EXPECT_THROW(behind.remote_exec("import os; os._exit(3)").waitclose(20s), GatewayGone);
  EXPECT_EQ(behind.returncode(), 3);
  const Gateway proxy = group["proxy"];
  EXPECT_TRUE(group.terminate(20s));
  EXPECT_EQ(proxy.returncode(), 0);
}

TEST(Group, AForkedCopyIsToldWhoseItIs) {
  Group group{"popen"};
  const pid_t child = ::fork();
  if (child == 0) {
    int refused = 0;
    try {
      static_cast<void>(group[0].newchannel());
    } catch (const ForkedResourceError&) {
      ++refused;
    }
    try {
      group.makegateway("popen");
    } catch (const ForkedResourceError&) {
      ++refused;
    }
    ::_exit(refused == 2 && group.terminate() && !group[0].returncode() ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(Group, EndsInAProgramThatHasClosedAllDescriptors) {
  for (const char* spec : {"popen", "popen//preload=json"}) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(20);
      Group group{spec, "popen//id=proxy", "popen//via=proxy"};
      const MultiChannel channels = group.remote_exec("channel.send(1); channel.receive()");
      for (std::size_t i = 0; i < group.size(); ++i) {
        static_cast<void>(channels[i].receive(20s));
      }
      ::close_range(3, ~0U, 0);
      group.terminate(1s);
      ::_exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0) << spec;
  }
}

TEST(Group, ProfileIsTheExecutionModelToo) {
  Group group{"popen//profile=main_thread_only"};
  EXPECT_EQ(group[0].remote_status().at("execmodel"), Value("main_thread_only"));
  EXPECT_THROW(group.makegateway("popen//execmodel=thread//profile=main_thread_only"), SpecError);
}

TEST(Group, ASecondCallbackIsAMistakeOfTheProgram) {
  Group group{"popen"};
  const Channel channel = group[0].remote_exec("channel.receive()");
  channel.setcallback([](const Value&) {});
  EXPECT_THROW(channel.setcallback([](const Value&) {}), StateError);
  EXPECT_THROW(static_cast<void>(channel.receive()), StateError);
  channel.close();
  EXPECT_THROW(channel.send(1), ChannelClosed);
}

TEST(Group, TellsWhatEndedAChannel) {
  Group group{"popen"};
  const auto channel = group[0].remote_exec("raise ValueError('of mine')");
  const auto queue = MultiChannel({channel}).make_receive_queue();
  EXPECT_FALSE(queue.get(20s).value);
  const std::exception_ptr error = channel.take_error();
  ASSERT_NE(error, nullptr);
  EXPECT_THROW(std::rethrow_exception(error), RemoteError);
  EXPECT_EQ(channel.take_error(), nullptr);
}

TEST(Group, LoadsStringsAsReconfigured) {
  Group group{"popen"};
  const auto channel = group[0].remote_exec("channel.send(channel.receive() == b'text')");
  channel.reconfigure({.py2str_as_py3str = true, .py3str_as_py2str = true});
  channel.send("text");
  EXPECT_TRUE(channel.receive<bool>(20s));
  group[0].reconfigure({.py2str_as_py3str = true, .py3str_as_py2str = true});
  const auto other = group[0].remote_exec("channel.send(channel.receive() == b'text')");
  other.send("text");
  EXPECT_TRUE(other.receive<bool>(20s));
}

TEST(Group, SendsAChannelOverAChannel) {
  Group group{"popen"};
  const Channel inner = group[0].newchannel();
  const Channel outer = group[0].remote_exec("channel.receive()['reply to'].send('through the other')");
  outer.send(Dict{{"reply to", inner}});
  EXPECT_EQ(inner.receive<std::string>(), "through the other");
  Group other{"popen"};
  EXPECT_THROW(other[0].remote_exec("pass").send(inner), DumpError);
}

}  // namespace
}  // namespace execnet
