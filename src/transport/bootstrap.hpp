// The one line of Python on the command line of a new interpreter. Values; any thread.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "transport/transport.hpp"

namespace execnet::transport {

// Loads our extension from the file `native_module`, without importing the package around it, and
// serves on kStreamFd.
std::string native_line(std::string_view native_module);

// For a fork server on descriptor 0: imports the modules, then forks workers that serve like those of native_line
// or, if `native_module` is empty, of pure_line. Reads fork_server.py, and for pure
// workers worker.py, compressed, from there. `grace` is that of the workers, which it outlives. On Python 2 it says
// that Python 3 is needed, and exits.
std::string fork_server_line(const std::vector<std::string>& modules, std::string_view native_module,
                             std::chrono::milliseconds grace);

// Reads worker.py, compressed, from descriptor 0 and serves there and on 1. If there is `code`, it comes before the
// source, and an interpreter of its version runs that instead. The line runs on Python 2.7 and 3 and contains no single
// quote.
std::string pure_line(const std::optional<WorkerCode>& code = {});

// The same on kStreamFd only.
std::string pure_socket_line(const std::optional<WorkerCode>& code = {});

// The line for a `socketserver.py` of the released execnet: worker/line_worker.py, and a call of it. Nothing may
// follow the line until the worker answers, because the server's buffered reader might swallow that. So it also
// contains `hello`, the coordinator's HELLO frame. If the server can fork, a child runs the worker.
std::string server_line(std::string_view hello);

// The same for an interpreter that runs kBootstrapLine, on descriptors 0 and 1.
std::string stdin_line(std::string_view hello);

// What programs of the released execnet put on command lines that they make themselves: they import it or repeat it.
inline constexpr const char* kBootstrapLine = "import sys;exec(eval(sys.stdin.readline()))";

// The path as a string literal that every Python 3 turns back into the same bytes for the system,
// whatever its locale: ASCII, with the bytes outside of it as the surrogates of PEP 383.
std::string path_literal(std::string_view path);

}  // namespace execnet::transport
