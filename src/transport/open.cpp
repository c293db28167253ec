#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <execnet/error.hpp>
#include <tuple>

#include "base/syscall.hpp"
#include "base/utf8.hpp"
#include "process/spawn.hpp"
#include "transport/bootstrap.hpp"
#include "transport/fork_server_source.hpp"
#include "transport/shell.hpp"
#include "transport/transport.hpp"
#include "transport/worker_source.hpp"

namespace execnet::transport {
namespace {

constexpr std::size_t kCommandLength = 160;  // bytes; more says nothing more in a message

}  // namespace

Launch launch_for(const XSpec& spec, const LocalPython& python, bool may_ask) {
  const std::string type = spec.type();
  Launch launch = carrier_of(spec)        ? ssh_fork_launch(spec, python)
                  : type == "ssh"         ? ssh_launch(spec, pure_line(), may_ask)
                  : type == "vagrant_ssh" ? vagrant_launch(spec, pure_line(), may_ask)
                                          : popen_launch(spec, python);
  launch.spec = without_secrets(spec.text());
  launch.leniency.grace = spec.grace();
  return launch;
}

std::vector<std::string> bootstrap_args(const XSpec& spec, const LocalPython& python) {
  XSpec plain = spec;
  plain.set("preload", std::nullopt);
  const std::string type = plain.type();
  Launch launch = type == "ssh"           ? ssh_launch(plain, kBootstrapLine)
                  : type == "vagrant_ssh" ? vagrant_launch(plain, kBootstrapLine)
                                          : popen_launch(plain, python);
  if (launch.kind == "Popen") {
    launch.argv.back() = kBootstrapLine;
  }
  return launch.argv;
}

Launch launch_of(const XSpec& spec, const LocalPython& python, std::vector<std::string> argv) {
  Launch launch = launch_for(spec, python);
  launch.argv = std::move(argv);
  launch.native = false;
  launch.stream_on_stdio = true;
  return launch;
}

std::string command_line(const Launch& launch) {
  std::string line;
  for (const std::string& word : launch.argv) {
    line += (line.empty() ? "" : " ") + shell_quote(word);
  }
  if (line.size() > kCommandLength) {
    line = line.substr(0, base::whole_characters(line, kCommandLength - 3)) + "...";
  }
  for (char& c : line) {
    if (std::iscntrl(static_cast<unsigned char>(c)) != 0) {
      c = '?';
    }
  }
  return line;
}

base::Buffer preamble(const Launch& launch) {
  base::Buffer sources(launch.sources);
  if (!launch.sources.empty()) {
    return sources;
  }
  if (launch.forks) {
    sources.append(fork_server_source());
  }
  if (!launch.native) {
    sources.append(launch.worker_code);
    sources.append(worker_source_gz());
  }
  return sources;
}

Link start(const Launch& launch) {
  auto [ours, theirs] = base::socket_pair();
  auto [stderr_in, stderr_out] = base::make_pipe();
  const base::Fd null(base::check("open", [] { return ::open("/dev/null", O_RDWR | O_CLOEXEC); }, "/dev/null"));
  base::Fd stdout_in;
  base::Fd stdout_out;
  if (launch.captures_stdout && !launch.forks) {
    std::tie(stdout_in, stdout_out) = base::make_pipe();
  }
  const auto standard = [&](int fd) {
    return fd == STDOUT_FILENO && stdout_out ? stdout_out.get() : base::has_standard(fd) ? fd : null.get();
  };
  process::SpawnRequest request{.argv = launch.argv,
                                .set_env = launch.env,
                                .fds = {{launch.stream_on_stdio  ? theirs.get()
                                         : launch.inherits_stdin ? standard(STDIN_FILENO)
                                                                 : null.get(),
                                         STDIN_FILENO},
                                        {stderr_out.get(), STDERR_FILENO}},
                                .isolate = launch.isolate,
                                .leniency = launch.leniency};
  const bool stdout_is_stream = launch.stream_on_stdio && !launch.forks;  // a fork server writes to its 0, a socket
  request.fds.emplace_back(stdout_is_stream ? theirs.get() : standard(STDOUT_FILENO), STDOUT_FILENO);
  if (launch.beside) {
    request.fds.insert(request.fds.end(), {{theirs.get(), kStreamFd}, {standard(STDERR_FILENO), kStderrFd}});
    if (stdout_is_stream) {
      request.fds.emplace_back(standard(STDOUT_FILENO), kStdoutFd);
    }
  }

  Link link;
  link.process = process::spawn(request);
  link.stream = std::move(ours);
  link.stderr_pipe = std::move(stderr_in);
  link.stdout_pipe = std::move(stdout_in);
  return link;
}

Link open(const Launch& launch) {
  try {
    return start(launch);
  } catch (const process::ExecError& error) {
    const bool known = !launch.spec.empty();  // not to a proxy, whose coordinator says it
    throw HostNotFound("cannot start '" + launch.argv[0] + (known ? "' for " + launch.spec : "'") + ": " +
                       error.code().message() + (known ? "; " + launch.advice : ""));
  } catch (const process::IsolationError& error) {
    throw HostNotFound("cannot isolate " + launch.spec + ": " + error.code().message() +
                       "; isolate=pidns takes root or user namespaces for everybody, and a /proc that may be mounted");
  }
}

}  // namespace execnet::transport
