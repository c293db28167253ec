#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <execnet/error.hpp>
#include <execnet/xspec.hpp>
#include <optional>
#include <string_view>

#include "process/spawn.hpp"
#include "transport/bootstrap.hpp"
#include "transport/shell.hpp"
#include "transport/transport.hpp"

namespace execnet::transport {
namespace {

using Environment = std::vector<std::pair<std::string, std::string>>;

// python3 or, where there is only that, python. With neither, python3: it is the one to complain about.
std::string python_in_path(const Environment& env) {
  for (const std::string name : {"python3", "python"}) {
    const auto candidates = process::program_candidates(name, env);
    if (std::any_of(candidates.begin(), candidates.end(),
                    [](const std::string& file) { return ::access(file.c_str(), X_OK) == 0; })) {
      return name;
    }
  }
  return "python3";
}

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

// Identifiers with dots between them. What is not ASCII is left to the interpreter.
bool is_module_name(std::string_view text) {
  bool begins = true;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool letter = c == '_' || byte >= 0x80 || std::isalpha(byte) != 0;
    if (c == '.' ? begins : !letter && (begins || std::isdigit(byte) == 0)) {
      return false;
    }
    begins = c == '.';
  }
  return !begins;
}

}  // namespace

Launch popen_launch(const XSpec& spec, const LocalPython& python) {
  Launch launch;
  launch.kind = "Popen";
  launch.env.assign(spec.env().begin(), spec.env().end());
  const auto chosen = spec.get("python");
  if (chosen) {
    launch.argv = shell_split(*chosen);
    launch.advice =
        spec.has("via")
            ? "python= must name a Python interpreter on the machine of the proxy, as a path or a program in PATH"
            : "python= must name a Python interpreter on this machine, as a path or a program in PATH";
  } else {
    launch.argv = {python.executable.empty() ? python_in_path(launch.env) : python.executable};
    launch.argv.insert(launch.argv.end(), python.options.begin(), python.options.end());
    launch.advice = "install Python 3 or name an interpreter with python=";
  }
  launch.isolate = spec.has("isolate");
  launch.leniency.keeps_detached = spec.keeps_detached();  // ssh, say, is not to leave anything
  // What a native worker speaks over has to be a socket, and what stands before the interpreter may relay with pipes.
  launch.beside = spec.get("transport") != "stdio";
  launch.native = !chosen && launch.beside && !python.executable.empty() && !python.native_module.empty();
  launch.inherits_stdin = spec.get("stdin") == "inherit";
  launch.captures_stdout = spec.get("stdout") == kCallback;
  // Who is told -P is to stay without the working directory.
  const bool left_out = std::find(launch.argv.begin(), launch.argv.end(), "-P") != launch.argv.end();
  if ((!launch.native || python.imports_first) && !left_out && !spec.env().contains(kSafePath) && !is_set(kSafePath)) {
    launch.env.emplace_back(kSafePath, kOnlyAtStart);
  }
  launch.argv.emplace_back("-u");
  if (spec.has("dont_write_bytecode")) {
    launch.argv.emplace_back("-B");
  }
  launch.argv.emplace_back("-c");
  launch.forks = spec.has("preload");
  launch.stream_on_stdio = launch.forks || !(launch.native || spec.needs_socket());
  // Not for a fork server, which compiles once for all: its sources are to fit into a socket.
  const std::optional<WorkerCode> code = launch.native || launch.forks ? std::nullopt : python.worker_code;
  launch.worker_code = code ? code->code_gz : "";
  if (launch.forks) {
    launch.argv.push_back(
        fork_server_line(preloaded_modules(spec), launch.native ? python.native_module : "", spec.grace()));
  } else {
    launch.argv.push_back(launch.native            ? native_line(python.native_module)
                          : launch.stream_on_stdio ? pure_line(code)
                                                   : pure_socket_line(code));
  }
  return launch;
}

std::vector<std::string> preloaded_modules(const XSpec& spec) {
  std::vector<std::string> names;
  if (!spec.get("preload")) {
    return names;
  }
  const std::string list = *spec.get("preload");
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    names.push_back(list.substr(begin, end - begin));
    if (!is_module_name(names.back())) {
      throw SpecError("'" + names.back() + "' is no name of a module, in preload=" + list + " of specification \"" +
                      without_secrets(spec.text()) + "\"; the form is preload or preload=numpy,xml.dom");
    }
    begin = end + 1;
  }
  return names;
}

}  // namespace execnet::transport
