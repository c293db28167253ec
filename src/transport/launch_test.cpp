#include <gtest/gtest.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <execnet/error.hpp>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>
#include <string>

#include "base/syscall.hpp"
#include "process/spawn.hpp"
#include "transport/bootstrap.hpp"
#include "transport/shell.hpp"
#include "transport/transport.hpp"
#include "transport/worker_source.hpp"

namespace execnet::transport {
namespace {

using namespace std::chrono_literals;
using Words = std::vector<std::string>;

class TempDirectory {
 public:
  TempDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "execnet-launch-XXXXXX").string();
    path = ::mkdtemp(name.data());
  }
  ~TempDirectory() { std::filesystem::remove_all(path); }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;

  void write_program(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((path / name).parent_path());
    std::ofstream(path / name) << text;
    ASSERT_EQ(::chmod((path / name).c_str(), 0755), 0);
  }

  std::filesystem::path path;
};

struct Outcome {
  std::string out;
  std::string err;
  process::ExitStatus status;
};

std::string read_all(int fd) {
  std::string text;
  std::array<char, 4096> bytes{};
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  while (base::poll_until(std::span(&entry, 1), {.deadline = base::Clock::now() + 20s})) {
    const auto size = base::check("read", [&] { return ::read(fd, bytes.data(), bytes.size()); });
    if (size == 0) {
      return text;
    }
    text.append(bytes.data(), static_cast<std::size_t>(size));
  }
  ADD_FAILURE() << "nothing came in time after: " << text;
  return text;
}

Outcome run(const Words& argv, const std::vector<std::pair<std::string, std::string>>& env = {}) {
  auto [out, out_theirs] = base::make_pipe();
  auto [err, err_theirs] = base::make_pipe();
  const auto process =
      process::spawn({.argv = argv, .set_env = env, .fds = {{out_theirs.get(), 1}, {err_theirs.get(), 2}}});
  out_theirs.reset();
  err_theirs.reset();
  // Small outputs: neither fills its pipe while the other is read.
  Outcome outcome;
  outcome.out = read_all(out.get());
  outcome.err = read_all(err.get());
  outcome.status = process->wait({.deadline = base::Clock::now() + 20s}).value_or(process::ExitStatus{.known = false});
  return outcome;
}

Launch launch(std::string_view text, const LocalPython& python = {}) {
  const XSpec spec(text);
  spec.validate();
  return launch_for(spec, python);
}

TEST(PopenLaunch, APlainOneRunsTheLocalPythonNatively) {
  const Launch made = launch("popen//env:A=b", {.executable = "/opt/python3", .native_module = "/opt/_core.so"});
  EXPECT_EQ(made.argv, (Words{"/opt/python3", "-u", "-c", native_line("/opt/_core.so")}));
  EXPECT_EQ(made.env, (std::vector<std::pair<std::string, std::string>>{{"A", "b"}, {kSafePath, kOnlyAtStart}}));
  EXPECT_TRUE(made.native);
  EXPECT_FALSE(made.stream_on_stdio);
  EXPECT_EQ(made.kind, "Popen");
  EXPECT_EQ(made.address, "");
}

TEST(PopenLaunch, APlainOneIsStartedWithTheOptionsOfThisInterpreter) {
  const LocalPython local{
      .executable = "/opt/python3", .native_module = "/opt/_core.so", .options = {"-I", "-X", "dev"}};
  EXPECT_EQ(launch("popen", local).argv,
            (Words{"/opt/python3", "-I", "-X", "dev", "-u", "-c", native_line("/opt/_core.so")}));
  EXPECT_EQ(launch("popen//preload", local).argv[1], "-I");
  EXPECT_EQ(launch("popen//python=py", local).argv, (Words{"py", "-u", "-c", pure_line()})) << "another interpreter";
  EXPECT_EQ(launch("ssh=host", local).argv, launch("ssh=host").argv);
}

TEST(PopenLaunch, TheWorkingDirectoryIsOffThePathOfWhatImportsTooEarly) {
  const std::vector<std::pair<std::string, std::string>> set{{kSafePath, kOnlyAtStart}};
  LocalPython local{.executable = "/opt/python3", .native_module = "/opt/_core.so", .imports_first = false};
  EXPECT_TRUE(launch("popen", local).env.empty());
  EXPECT_EQ(launch("popen//python=py", local).env, set) << "of any version";
  local.imports_first = true;
  EXPECT_EQ(launch("popen", local).env, set);
  using Variables = std::vector<std::pair<std::string, std::string>>;
  EXPECT_EQ(launch("popen//env:PYTHONSAFEPATH=1", local).env, (Variables{{kSafePath, "1"}})) << "that is meant";
  EXPECT_EQ(launch("popen//env:PYTHONSAFEPATH=", local).env, (Variables{{kSafePath, ""}}));
}

TEST(PopenLaunch, WithoutTheExtensionTheWorkerIsPure) {
  const Launch made = launch("popen//dont_write_bytecode", {.executable = "/opt/python3", .native_module = ""});
  EXPECT_EQ(made.argv, (Words{"/opt/python3", "-u", "-B", "-c", pure_line()}));
  EXPECT_FALSE(made.native);
}

TEST(PopenLaunch, ANamedPythonIsSplitLikeAShellWouldAndPure) {
  const Launch made =
      launch("popen//python='/opt/my python' -X dev", {.executable = "/opt/python3", .native_module = "/opt/_core.so"});
  EXPECT_EQ(made.argv, (Words{"/opt/my python", "-X", "dev", "-u", "-c", pure_line()}));
  EXPECT_FALSE(made.native);
}

TEST(PopenLaunch, AnInterpreterOfThisMachineIsSentTheCodeAndTheSource) {
  const LocalPython local{.executable = "/opt/python3",
                          .native_module = "/opt/_core.so",
                          .worker_code = {{.magic = "1234", .code_gz = "code"}}};
  const Launch made = launch("popen//python=py", local);
  EXPECT_EQ(made.argv.back(), pure_line(local.worker_code));
  EXPECT_EQ(preamble(made).view(), "code" + std::string(worker_source_gz()));
  for (const char* spec : {"popen", "popen//python=py//preload", "ssh=host", "ssh=host//python=py"}) {
    EXPECT_TRUE(launch(spec, local).worker_code.empty()) << spec;
  }
}

TEST(PopenLaunch, WithoutALocalPythonItIsPython3ThenPythonFromThePathThatWillBe) {
  const TempDirectory bin;
  const std::string spec = "popen//env:PATH=" + bin.path.string();
  EXPECT_EQ(launch(spec).argv[0], "python3") << "with neither, the one to complain about";
  bin.write_program("python", "#!/bin/sh\n");
  EXPECT_EQ(launch(spec).argv[0], "python");
  bin.write_program("python3", "#!/bin/sh\n");
  EXPECT_EQ(launch(spec).argv[0], "python3");
}

TEST(PopenLaunch, WithPreloadItIsAForkServer) {
  const Launch native =
      launch("popen//preload=a,b.c", {.executable = "/opt/python3", .native_module = "/opt/_core.so"});
  EXPECT_EQ(native.argv,
            (Words{"/opt/python3", "-u", "-c", fork_server_line({"a", "b.c"}, "/opt/_core.so", XSpec::kGrace)}));
  EXPECT_TRUE(native.forks);
  EXPECT_TRUE(native.native);
  const Launch pure =
      launch("popen//preload//python=py", {.executable = "/opt/python3", .native_module = "/opt/_core.so"});
  EXPECT_EQ(pure.argv, (Words{"py", "-u", "-c", fork_server_line({}, "", XSpec::kGrace)}));
  EXPECT_FALSE(pure.native);
  EXPECT_GT(preamble(pure).size(), preamble(native).size());
}

TEST(PopenLaunch, OnlyANativeWorkerHasTheStreamBesideItsStandardDescriptors) {
  const LocalPython local{.executable = "/opt/python3", .native_module = "/opt/_core.so"};
  EXPECT_FALSE(launch("popen", local).stream_on_stdio);
  EXPECT_TRUE(launch("popen//preload", local).stream_on_stdio);
  EXPECT_TRUE(launch("popen//python=sudo py", local).stream_on_stdio) << "the program may pass on no more than them";
  EXPECT_TRUE(launch("popen").stream_on_stdio);
}

TEST(PopenLaunch, TransportSaysWhereTheStreamIs) {
  const LocalPython local{.executable = "/opt/python3", .native_module = "/opt/_core.so"};
  const Launch stdio = launch("popen//transport=stdio", local);
  EXPECT_TRUE(stdio.stream_on_stdio);
  EXPECT_FALSE(stdio.beside);
  EXPECT_FALSE(stdio.native) << "which needs a socket, and there may be pipes between";
  EXPECT_EQ(stdio.argv.back(), pure_line());
  for (const char* spec : {"popen//python=py//transport=socket", "popen//python=py//stdin=inherit"}) {
    const Launch socket = launch(spec, local);
    EXPECT_FALSE(socket.stream_on_stdio) << spec;
    EXPECT_TRUE(socket.beside) << spec;
    EXPECT_EQ(socket.argv.back(), pure_socket_line()) << spec;
  }
  EXPECT_EQ(launch("popen//transport=socket", local).argv, launch("popen", local).argv);
  EXPECT_TRUE(launch("popen//stdin=inherit", local).inherits_stdin);
  EXPECT_FALSE(launch("popen", local).inherits_stdin);
  EXPECT_TRUE(launch("popen//stdout=callback").captures_stdout);
  EXPECT_FALSE(launch("popen//stdout=inherit").captures_stdout);
}

TEST(Launch, ItsGuardHasTheGraceOfTheSpecAndKeepsWhatIsDetachedHere) {
  EXPECT_EQ(launch("popen").leniency.grace, XSpec::kGrace);
  EXPECT_FALSE(launch("popen").leniency.keeps_detached);
  EXPECT_EQ(launch("popen//preload//grace=2.5").leniency.grace, std::chrono::milliseconds(2500));
  EXPECT_TRUE(launch("popen//detached=keep").leniency.keeps_detached);
  // The worker over there guards itself. What ssh has started is not to stay.
  EXPECT_EQ(launch("ssh=host//grace=0").leniency.grace, std::chrono::milliseconds(0));
  EXPECT_FALSE(launch("ssh=host//detached=keep").leniency.keeps_detached);
}

TEST(PopenLaunch, PreloadNamesModules) {
  EXPECT_EQ(preloaded_modules(XSpec("popen")), Words());
  EXPECT_EQ(preloaded_modules(XSpec("popen//preload")), Words());
  EXPECT_EQ(preloaded_modules(XSpec("popen//preload=_a1,b.c,m\xc3\xa9")), (Words{"_a1", "b.c", "m\xc3\xa9"}));
  for (const char* bad : {"", ",", "a,", ",a", "a,,b", "a b", "1a", "a.", ".a", "a..b", "a.1", "a-b", "a;b"}) {
    EXPECT_THROW(preloaded_modules(XSpec(std::string("popen//preload=") + bad)), SpecError) << bad;
  }
}

TEST(SshLaunch, PutsTheWordsOfTheSpecBetweenConfigAndCommand) {
  const Launch made = launch("ssh=-p 2222 -o 'ProxyCommand=nc %h %p' user@host//ssh_config=/my config");
  ASSERT_EQ(made.argv.size(), 11U);
  EXPECT_EQ(Words(made.argv.begin(), made.argv.end() - 1),
            (Words{"ssh", "-F", "/my config", "-p", "2222", "-o", "ProxyCommand=nc %h %p", "user@host", "-o",
                   "ControlMaster=no"}));
  EXPECT_TRUE(made.stream_on_stdio);
  EXPECT_FALSE(made.native);
  EXPECT_EQ(made.kind, "Ssh");
  EXPECT_EQ(made.address, "-p 2222 -o 'ProxyCommand=nc %h %p' user@host");
}

TEST(SshLaunch, WithPreloadItHasACarrierThatIsTheSameForAllOfThatTarget) {
  const std::string target = "ssh=host//ssh_config=c//python=p//grace=5//detached=keep";
  const auto carrier = carrier_of(XSpec(target + "//preload=a//chdir=d//nice=1//env:A=b//id=x"));
  ASSERT_TRUE(carrier.has_value());
  EXPECT_EQ(carrier->settings(), XSpec(target).settings());
  EXPECT_TRUE(carrier->env().empty());
  for (const char* spec : {"ssh=host", "popen//preload", "popen//preload//via=x"}) {
    EXPECT_FALSE(carrier_of(XSpec(spec)).has_value()) << spec;
  }
}

TEST(SshLaunch, WithPreloadTheCarrierIsToStartAForkServer) {
  const LocalPython there{.executable = "/far/python3", .native_module = ""};
  const Launch made = launch("ssh=host//preload=a//env:A=b", there);
  EXPECT_EQ(made.argv, (Words{"/far/python3", "-u", "-c", fork_server_line({"a"}, "", XSpec::kGrace)}));
  EXPECT_EQ(made.env, (std::vector<std::pair<std::string, std::string>>{{"A", "b"}, {kSafePath, kOnlyAtStart}}));
  EXPECT_EQ(made.kind, "Ssh");
  EXPECT_EQ(made.address, "host");
  EXPECT_TRUE(made.forks);
  EXPECT_EQ(
      launch("ssh=host//preload//python=~/py -X dev", there).argv,
      (Words{"sh", "-c", "~/py -X dev \"$@\"", "/far/python3", "-u", "-c", fork_server_line({}, "", XSpec::kGrace)}))
      << "code of the shell, as everywhere";
}

TEST(SshLaunch, HasItsOptionAfterThoseOfTheSpecWhichWinThenButNotInPlaceOfTheCommand) {
  const auto words = [](std::string_view spec) {
    const Launch made = launch(spec);
    return Words(made.argv.begin(), made.argv.end() - 1);
  };
  EXPECT_EQ(words("ssh=-o ControlMaster=auto host"),
            (Words{"ssh", "-o", "ControlMaster=auto", "host", "-o", "ControlMaster=no"}));
  EXPECT_EQ(words("ssh=host -p 22"), (Words{"ssh", "host", "-p", "22", "-o", "ControlMaster=no"}));
  EXPECT_EQ(words("ssh=-p 22 -- host"), (Words{"ssh", "-p", "22", "-o", "ControlMaster=no", "--", "host"}));
}

TEST(SshLaunch, KeepsDirectoriesAndVariablesOffTheCommandLine) {
  const Launch made = launch("ssh=host//env:TOKEN=secret//chdir=hideout//nice=7");
  EXPECT_TRUE(made.env.empty());
  for (const std::string& word : made.argv) {
    EXPECT_EQ(word.find("secret"), std::string::npos);
    EXPECT_EQ(word.find("hideout"), std::string::npos);
  }
}

// The login shells of this machine, each with the option to run a command: one or the other is what
// sshd will hand the command to.
class RemoteCommand : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const std::string shell = GetParam();
    for (const std::string& file : process::program_candidates(shell, {})) {
      if (shell_.empty() && ::access(file.c_str(), X_OK) == 0) {
        shell_ = file;
      }
    }
    if (shell_.empty()) {
      GTEST_SKIP() << "no " << shell << " on this machine";
    }
    // All that the other side has: sh, and what a test adds.
    std::filesystem::create_directories(host_.path / "bin");
    std::filesystem::create_symlink("/bin/sh", host_.path / "bin" / "sh");
  }

  // Stands for an interpreter: says its name and arguments, one a line.
  void install_python(const std::string& name) const {
    host_.write_program(name, "#!/bin/sh\necho \"${0##*/}\"\nprintf '%s\\n' \"$@\"\n");
  }

  Outcome log_in(std::string_view spec) const {
    return run({shell_, "-c", launch(spec).argv.back()},
               {{"PATH", host_.path / "bin"}, {"HOME", host_.path}, {"TOOLS", host_.path / "bin"}});
  }

  TempDirectory host_;
  std::string shell_;
};

TEST_P(RemoteCommand, PrefersPython3) {
  install_python("bin/python");
  install_python("bin/python3");
  const Outcome outcome = log_in("ssh=host");
  EXPECT_EQ(outcome.out, "python3\n-u\n-c\n" + pure_line() + "\n");
  EXPECT_EQ(outcome.err, "");
}

TEST_P(RemoteCommand, TakesPythonWhereThatIsAll) {
  install_python("bin/python");
  EXPECT_EQ(log_in("ssh=host//dont_write_bytecode").out, "python\n-u\n-B\n-c\n" + pure_line() + "\n");
}

TEST_P(RemoteCommand, SaysSoWhereThereIsNone) {
  const Outcome outcome = log_in("ssh=host");
  EXPECT_EQ(outcome.status, process::ExitStatus{.code = 127});
  EXPECT_EQ(outcome.err, "no python3 or python on this host; name one with python=\n");
  EXPECT_EQ(outcome.out, "");
}

TEST_P(RemoteCommand, ExpandsANamedPythonThere) {
  install_python("my tools/py!thon");
  install_python("bin/python3");
  const std::string rest = "-u\n-c\n" + pure_line() + "\n";
  EXPECT_EQ(log_in("ssh=host//python=~/'my tools/py!thon' -X dev").out, "py!thon\n-X\ndev\n" + rest);
  EXPECT_EQ(log_in("ssh=host//python=$TOOLS/python3").out, "python3\n" + rest);
  EXPECT_EQ(log_in("ssh=host//python=~/my\\ tools/py\\!thon").out, "py!thon\n" + rest);
}

TEST_P(RemoteCommand, RunsWhatIsCodeOfTheShell) {
  install_python("bin/python3");
  host_.write_program("venv/activate", "PATH=$HOME/venv:$PATH\n");
  install_python("venv/python");
  const std::string rest = "-u\n-c\n" + pure_line() + "\n";
  for (const char* python :
       {"A=1 python3", "PATH=/nowhere:$PATH python3", "cd / && python3", "umask 077; python3", "command python3",
        "if [ -d / ]; then A=1; fi; python3", "exec python3", "(cd /; true); python3", "python3 2>&1",
        "nopython 2>/dev/null || python3", "! false && python3", "for A in 1; do :; done; python3"}) {
    const Outcome outcome = log_in(std::string("ssh=host//python=") + python);
    EXPECT_EQ(outcome.out, "python3\n" + rest) << python << ": " << outcome.err;
    EXPECT_EQ(outcome.err, "") << python;
  }
  EXPECT_EQ(log_in("ssh=host//python=. ~/venv/activate && python").out, "python\n" + rest);
}

TEST_P(RemoteCommand, FailsWithTheShellsOwnWordsWhenANamedPythonIsMissing) {
  const Outcome outcome = log_in("ssh=host//python=nopython");
  EXPECT_EQ(outcome.status, process::ExitStatus{.code = 127});
  EXPECT_NE(outcome.err.find("nopython"), std::string::npos) << outcome.err;
}

INSTANTIATE_TEST_SUITE_P(LoginShells, RemoteCommand, testing::Values("sh", "bash", "zsh", "ksh", "csh", "tcsh", "fish"),
                         [](const auto& test) { return std::string(test.param); });

TEST(Bootstrap, APathLiteralIsTheSameBytesInPythonAgain) {
  std::string path = "/x\"'\\\n";
  for (int byte = 1; byte < 256; ++byte) {
    path.push_back(static_cast<char>(byte));
  }
  const std::string literal = path_literal(path);
  EXPECT_TRUE(std::all_of(literal.begin(), literal.end(), [](char c) { return c >= ' ' && c <= '~'; })) << literal;
  for (const char* locale : {"C", "C.UTF-8", "POSIX"}) {
    const Outcome outcome =
        run({"python3", "-c", "import os; os.write(1, os.fsencode(" + literal + "))"}, {{"LC_ALL", locale}});
    EXPECT_EQ(outcome.out, path) << outcome.err;
  }
}

TEST(Launch, OfVagrantIsItsSshWithOurCommand) {
  const Launch there = launch("vagrant_ssh=box//ssh_config=file//python=py");
  EXPECT_EQ(there.kind, "VagrantSsh");
  EXPECT_EQ(there.address, "box");
  EXPECT_TRUE(there.stream_on_stdio);
  ASSERT_EQ(there.argv.size(), 9U);
  EXPECT_EQ(Words(there.argv.begin(), there.argv.end() - 1),
            (Words{"vagrant", "ssh", "box", "--", "-F", "file", "-o", "ControlMaster=no"}));
  EXPECT_EQ(there.argv.back(), launch("ssh=host//python=py").argv.back());
}

TEST(Bootstrap, ALineForAServerIsOneLine) {
  const std::string line = server_line("hello");
  EXPECT_EQ(line.find('\n'), line.size() - 1);
  EXPECT_EQ(run({"python3", "-c", "import sys; compile(eval(sys.argv[1]), 'line', 'exec')", line}).err, "");
}

TEST(Bootstrap, TheLineOfAForkServerCompiles) {
  for (const char* native_module : {"", "/opt/_core.so"}) {
    const std::string line = fork_server_line({"a", "b.c"}, native_module, XSpec::kGrace);
    EXPECT_EQ(run({"python3", "-c", "import sys; compile(sys.argv[1], 'line', 'exec')", line}).err, "");
  }
}

TEST(Bootstrap, ThePureLineCompilesAndHasNoSingleQuote) {
  for (const auto& code : {std::optional<WorkerCode>(), std::optional<WorkerCode>({"\xa7\r\r\n", "code"})}) {
    const std::string line = pure_line(code);
    EXPECT_EQ(line.find('\''), std::string::npos);
    EXPECT_EQ(run({"python3", "-c", "import sys; compile(sys.argv[1], 'line', 'exec')", line}).err, "");
  }
}

}  // namespace
}  // namespace execnet::transport
