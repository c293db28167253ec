// From a specification to a byte stream with a process behind it.
//
// Each transport only says how to launch (a value); `open` does it, the same way for all.
// Any thread.
#pragma once

#include <execnet/xspec.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/buffer.hpp"
#include "base/fd.hpp"
#include "process/process.hpp"

namespace execnet::transport {

// worker.py as the interpreters of one version have compiled it. Both live for ever.
struct WorkerCode {
  std::string_view magic;    // which version: importlib.util.MAGIC_NUMBER, 4 bytes
  std::string_view code_gz;  // a marshalled code object, as gzip
};

// The interpreter that a plain `popen` starts.
struct LocalPython {
  std::string executable;                 // empty: python3, then python, from PATH
  std::string native_module;              // path of the extension that `executable` can load; empty: pure worker
  std::vector<std::string> options = {};  // that the interpreter is to be started with, as ours was
  bool imports_first = true;              // it imports before it runs its command line: 3.13 and later, or not known
  // Sent beside the source to interpreters on this machine: those of the same version need not compile that.
  std::optional<WorkerCode> worker_code = {};
};

// What to run for a specification.
struct Launch {
  std::vector<std::string> argv;
  std::vector<std::pair<std::string, std::string>> env;
  bool stream_on_stdio = false;  // the protocol is on descriptors 0 and 1, too, else on kStreamFd only
  bool beside = true;            // with it on 0 and 1: kStreamFd, kStderrFd and kStdoutFd are there as well
  bool captures_stdout = false;  // what the worker prints comes here, through a pipe
  bool inherits_stdin = false;   // descriptor 0 is this program's, else empty, if the protocol is not there
  bool isolate = false;          // in a PID namespace of its own
  bool deflates = false;         // the stream may go over a slow line: where it pays it is compressed
  process::Leniency leniency;    // of its guard
  bool native = false;           // the worker is our extension; else worker.py is sent first
  bool forks = false;            // a fork server: it makes workers when asked to, and is none itself
  std::string sources;           // what it reads first, if that is not ours
  std::string_view worker_code;  // of what is ours: WorkerCode::code_gz, before the source; empty: without
  std::string kind;              // "Popen", "Ssh", ...: the gateway's class name without "Gateway"
  std::string address;           // host as given, or host:port; empty for popen
  std::string spec;              // the specification for messages, without_secrets()
  std::string advice;            // what to do when argv[0] cannot be started
};

// Where a local worker finds the protocol, and the stderr it takes over once it is up. What passes on no more than the
// standard descriptors (sudo, docker exec -i, a script) may stand before an interpreter that python= names. So whoever
// has the protocol on 0 and 1 looks whether it is on kStreamFd as well: if so, these two came along, and kStdoutFd.
inline constexpr int kStreamFd = 3;
inline constexpr int kStderrFd = 4;
inline constexpr int kStdoutFd = 5;

// The value of the key stdout in the specification of a worker whose output a function of the program takes.
inline constexpr const char* kCallback = "callback";

// From 3.13 on, Python imports `linecache` for what is on the command line, before it runs that, and with the working
// directory on the path. A variable, of 3.11, leaves the directory out. So it is in the environment of a new
// interpreter, unless somebody has set it already. With this value it holds until the worker is up.
inline constexpr const char* kSafePath = "PYTHONSAFEPATH";
inline constexpr const char* kOnlyAtStart = "execnet";

// REQUIRES of all: spec.validate() has passed. `line` is what the interpreter over there runs. Without `may_ask`,
// ssh fails where it would ask for a password, a passphrase or whether to trust a key.
Launch popen_launch(const XSpec& spec, const LocalPython& python);
Launch ssh_launch(const XSpec& spec, const std::string& line, bool may_ask = true);
// A fork server at the other end of an ssh connection, whose worker is the proxy for it.
Launch ssh_fork_launch(const XSpec& spec, const LocalPython& python);
Launch vagrant_launch(const XSpec& spec, const std::string& line, bool may_ask = true);

// What connects to the host of an ssh gateway that is to be forked there: the same for all that can share it. None for
// others. It has no id.
std::optional<XSpec> carrier_of(const XSpec& spec);

// The modules that `preload` names; none if there is no such key. Throws SpecError for what are no modules' names.
std::vector<std::string> preloaded_modules(const XSpec& spec);

// The text of a specification as messages show it: each value of env:NAME, which may be secret, is ***. So is what may
// be the rest of one: a value ends at //, and what follows is taken for a key.
//   without_secrets("popen//env:TOKEN=ab//cd//id=a") == "popen//env:TOKEN=***//***//id=a"
std::string without_secrets(std::string_view specification);

// Chooses by spec.type(), which has a command to run; of what has a carrier it is what the carrier is to start. Throws
// SpecError.
Launch launch_for(const XSpec& spec, const LocalPython& python, bool may_ask = true);

// A command line that starts the interpreter of such a gateway, without `preload`, and has kBootstrapLine on it. Throws
// SpecError.
std::vector<std::string> bootstrap_args(const XSpec& spec, const LocalPython& python);
// Runs a command line that a program has made, in place of ours, with kBootstrapLine on it.
Launch launch_of(const XSpec& spec, const LocalPython& python, std::vector<std::string> argv);

struct Link {
  base::Fd stream;       // stream socket; both directions
  base::Fd stderr_pipe;  // read end of what the started process writes to its stderr
  base::Fd stdout_pipe;  // the same of its stdout, with Launch::captures_stdout; of a fork server there is none
  std::shared_ptr<process::Process> process;
};

// What is to be written to the stream before anything else: the sources that the command line reads, if any.
base::Buffer preamble(const Launch& launch);
// What is run, for messages: shell-quoted and cut to a line.
std::string command_line(const Launch& launch);

// Starts it. Throws process::ExecError when the program cannot be started, std::system_error when
// this process is out of descriptors, processes or memory. Nothing is left behind then.
Link start(const Launch& launch);

// The same, but throws HostNotFound when the program cannot be started.
Link open(const Launch& launch);

}  // namespace execnet::transport
