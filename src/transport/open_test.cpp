#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <execnet/error.hpp>
#include <filesystem>
#include <span>
#include <string>

#include "base/syscall.hpp"
#include "transport/bootstrap.hpp"
#include "transport/shell.hpp"
#include "transport/transport.hpp"
#include "transport/worker_source.hpp"

namespace execnet::transport {
namespace {

using namespace std::chrono_literals;

base::Wait soon() { return {.deadline = base::Clock::now() + 20s}; }

std::string read_all(int fd) {
  std::string text;
  char bytes[4096];
  for (;;) {
    pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
    if (!base::poll_until(std::span(&entry, 1), soon())) {
      ADD_FAILURE() << "nothing came in time after: " << text;
      return text;
    }
    const auto size = base::check("read", [&] { return ::read(fd, bytes, sizeof bytes); });
    if (size == 0) {
      return text;
    }
    text.append(bytes, static_cast<std::size_t>(size));
  }
}

Launch shell_launch(const std::string& command, bool stream_on_stdio) {
  Launch launch;
  launch.argv = {"/bin/sh", "-c", command};
  launch.stream_on_stdio = stream_on_stdio;
  launch.native = true;  // nothing is to be sent first
  return launch;
}

void say(const Link& link, std::string_view text) {
  base::check("send", [&] { return ::send(link.stream.get(), text.data(), text.size(), MSG_NOSIGNAL); });
  ::shutdown(link.stream.get(), SHUT_WR);
}

std::ptrdiff_t open_descriptors() {
  const std::filesystem::directory_iterator list("/proc/self/fd");
  return std::distance(begin(list), end(list));
}

TEST(Open, ALocalWorkerHasTheStreamBesideItsStandardDescriptors) {
  // Standard input is at its end, standard error is ours to read, and the real one is on 4.
  const Link link =
      open(shell_launch("read line || echo no-input >&2; test -e /dev/fd/4 || echo no-4 >&2; cat <&3 >&3", false));
  say(link, "ping");
  EXPECT_EQ(read_all(link.stream.get()), "ping");
  EXPECT_EQ(read_all(link.stderr_pipe.get()), "no-input\n");
  EXPECT_EQ(link.process->wait(soon()), process::ExitStatus{});
}

TEST(Open, ARemoteOneHasTheStreamOnStandardInputAndOutput) {
  const Link link = open(shell_launch("echo hint >&2; exec cat", true));
  say(link, "ping");
  EXPECT_EQ(read_all(link.stream.get()), "ping");
  EXPECT_EQ(read_all(link.stderr_pipe.get()), "hint\n");
  EXPECT_EQ(link.process->wait(soon()), process::ExitStatus{});
}

TEST(Open, WithNothingBesideTheStreamIsOnStandardInputAndOutputOnly) {
  Launch launch = shell_launch("for n in 3 4 5; do test -e /dev/fd/$n && echo $n >&2; done; exec cat", true);
  launch.beside = false;
  const Link link = open(launch);
  say(link, "ping");
  EXPECT_EQ(read_all(link.stream.get()), "ping");
  EXPECT_EQ(read_all(link.stderr_pipe.get()), "");
}

TEST(Open, WhatIsPrintedComesThroughAPipeWhereThatIsWanted) {
  for (const bool on_stdio : {false, true}) {
    Launch launch = shell_launch(on_stdio ? "echo printed >&5" : "echo printed", on_stdio);
    launch.captures_stdout = true;
    const Link link = open(launch);
    EXPECT_EQ(read_all(link.stdout_pipe.get()), "printed\n");
    EXPECT_EQ(read_all(link.stream.get()), "");
  }
  EXPECT_FALSE(open(shell_launch("true", false)).stdout_pipe);
}

TEST(Open, OnlyThePureWorkerIsSentItsSource) {
  Launch launch = shell_launch("exec cat >/dev/null", true);
  EXPECT_TRUE(preamble(launch).empty());
  launch.native = false;
  EXPECT_EQ(preamble(launch).view(), worker_source_gz());
}

TEST(Open, AMissingProgramIsHostNotFoundAndLeavesNothing) {
  const auto before = open_descriptors();
  const XSpec spec("popen//python=nopython//env:TOKEN=secret//id=a");
  try {
    open(launch_for(spec, {}));
    ADD_FAILURE() << "was started";
  } catch (const HostNotFound& error) {
    EXPECT_EQ(std::string(error.what()),
              "cannot start 'nopython' for popen//python=nopython//env:TOKEN=***//id=a: No such file or directory; "
              "python= must name a Python interpreter on this machine, as a path or a program in PATH");
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST(Open, TheCommandForMessagesIsOneShortLine) {
  const std::string command = command_line(shell_launch("true 'a\nb' " + std::string(500, 'x'), true));
  EXPECT_EQ(command.find('\n'), std::string::npos);
  EXPECT_TRUE(command.starts_with("/bin/sh -c 'true '\\''a?b"));
  EXPECT_TRUE(command.ends_with("x...")) << command;
  EXPECT_EQ(command.size(), 160U);
}

// Runs in a process of its own, whose standard descriptors are closed: everything opened then
// takes their numbers.
void open_without_standard_descriptors() {
  for (int fd = 0; fd <= 2; ++fd) {
    ::close(fd);
  }
  const Link link =
      open(shell_launch("for n in 0 1 2 4; do : <&$n || exit $n; done; echo kept; echo lost >&4; "
                        "echo shown >&2; exec cat <&3 >&3",
                        false));
  say(link, "ping");
  const bool good = read_all(link.stream.get()) == "ping" && read_all(link.stderr_pipe.get()) == "shown\n";
  std::_Exit(good && link.process->wait(soon()) == process::ExitStatus{} ? 0 : 1);
}

TEST(OpenDeathTest, WorksWhenTheStandardDescriptorsAreClosed) {
  EXPECT_EXIT(open_without_standard_descriptors(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace execnet::transport
