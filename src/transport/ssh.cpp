#include <algorithm>
#include <execnet/xspec.hpp>
#include <string_view>
#include <utility>

#include "transport/bootstrap.hpp"
#include "transport/shell.hpp"
#include "transport/transport.hpp"

namespace execnet::transport {
namespace {

// A connection that the configuration wants to be shared (ControlMaster, ControlPersist) would be held by a process
// that our client leaves behind, and the guard ends those: with the sessions of others over it. One that is there is
// used.
constexpr std::string_view kNoMaster[] = {"-o", "ControlMaster=no"};

void add_options(std::vector<std::string>& argv, bool may_ask) {
  argv.insert(argv.end(), std::begin(kNoMaster), std::end(kNoMaster));
  if (!may_ask) {
    argv.insert(argv.end(), {"-o", "BatchMode=yes"});
  }
}

// Whether that code of the shell is a program and its arguments, beyond doubt: then no shell has to wait for it. Others
// are assignments, functions, builtins, keywords or several commands.
bool is_one_program(std::string_view code) {
  const std::string_view first = code.substr(0, code.find(' '));
  const bool program = first.find('/') != std::string_view::npos || first.starts_with("py");
  return program && first.find('=') == std::string_view::npos &&
         code.find_first_of(";&|<>()\n") == std::string_view::npos;
}

// What the login shell there is asked to run. That may be any shell, so all it sees is one command
// with quoted words; the choice of an interpreter is made by sh. chdir, nice and env: are not in here,
// where every user of that host could read them: the worker is told in the HELLO.
std::string remote_command(const XSpec& spec, const std::string& line) {
  const std::string arguments =
      std::string(spec.has("dont_write_bytecode") ? "-u -B -c " : "-u -c ") + shell_quote(line);
  std::string script;
  if (const auto python = spec.get("python")) {
    script = (is_one_program(*python) ? "exec " : "") + *python + ' ' + arguments;
  } else {
    script = "for p in python3 python; do command -v $p >/dev/null 2>&1 && exec $p " + arguments +
             "; done; echo \"no python3 or python on this host; name one with python=\" >&2; exit 127";
  }
  return "exec sh -c " +
         shell_quote(std::string("export ") + kSafePath + "=${" + kSafePath + ":-" + kOnlyAtStart + "}; " + script);
}

Launch remote_launch(const XSpec& spec, std::vector<std::string> argv) {
  Launch launch;
  launch.stream_on_stdio = true;
  launch.deflates = true;
  launch.argv = std::move(argv);
  if (const auto config = spec.get("ssh_config")) {
    launch.argv.insert(launch.argv.end(), {"-F", *config});
  }
  return launch;
}

}  // namespace

// No other options of our own: compression, multiplexing, time-outs, keep-alives and batch mode are what
// the user's configuration says. Not -C either: 135 MB of base64 took 6 s over loopback with it and 1 s
// without. On a slow line the connection compresses by itself (connection/deflating.hpp).
Launch ssh_launch(const XSpec& spec, const std::string& line, bool may_ask) {
  Launch launch = remote_launch(spec, {"ssh"});
  launch.kind = "Ssh";
  launch.address = spec.get("ssh").value_or("");
  launch.advice = "ssh= needs the OpenSSH client; install the package openssh-client";
  const auto words = shell_split(launch.address);
  // After the user's, since the first of two is the one that counts, but where ssh still looks for options.
  const auto options_end = std::find(words.begin(), words.end(), "--");
  launch.argv.insert(launch.argv.end(), words.begin(), options_end);
  add_options(launch.argv, may_ask);
  launch.argv.insert(launch.argv.end(), options_end, words.end());
  launch.argv.push_back(remote_command(spec, line));
  return launch;
}

Launch ssh_fork_launch(const XSpec& spec, const LocalPython& python) {
  XSpec there = spec;
  there.set("python", std::nullopt);
  Launch launch = popen_launch(there, python);
  if (const auto chosen = spec.get("python")) {
    // In place of what the carrier runs on; as in remote_command(). It is the shell's $0.
    launch.argv.insert(launch.argv.begin(), {"sh", "-c", *chosen + " \"$@\""});
  }
  launch.kind = "Ssh";
  launch.address = spec.get("ssh").value_or("");
  launch.advice = "a shell as sh must be there";
  return launch;
}

std::optional<XSpec> carrier_of(const XSpec& spec) {
  if (spec.type() != "ssh" || !spec.has("preload")) {
    return std::nullopt;
  }
  XSpec carrier = spec;
  carrier.set_env({});
  for (const auto& [key, value] : spec.settings()) {
    if (key != "ssh" && key != "ssh_config" && key != "python" && key != "grace" && key != "detached" &&
        key != "connect_timeout") {
      carrier.set(key, std::nullopt);
    }
  }
  return carrier;
}

Launch vagrant_launch(const XSpec& spec, const std::string& line, bool may_ask) {
  const std::string machine = spec.get("vagrant_ssh").value_or("");
  Launch launch = remote_launch(spec, {"vagrant", "ssh", machine, "--"});
  launch.kind = "VagrantSsh";
  launch.address = machine;
  launch.advice = "vagrant_ssh= needs Vagrant, from vagrantup.com";
  add_options(launch.argv, may_ask);
  launch.argv.push_back(remote_command(spec, line));
  return launch;
}

}  // namespace execnet::transport
