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

// For a fork server on kStreamFd: imports the modules, then forks workers that serve like those of native_line
// or, if `native_module` is empty, of pure_line(false). Reads fork_server.py, and for pure
// workers worker.py, compressed, from there. `grace` is that of the workers, which it outlives. On Python 2 it says
// that Python 3 is needed, and exits.
std::string fork_server_line(const std::vector<std::string>& modules, std::string_view native_module,
                             std::chrono::milliseconds grace);

// A script for sh, for where a fork server can only be given the standard descriptors. It runs `program`, an expression
// of the shell, with the arguments, after moving the descriptors to the usual numbers.
std::string fork_server_script(const std::string& program);

// Reads worker.py, compressed, from the stream and serves there: on descriptors 0 and 1, or on
// kStreamFd. If there is `code`, it comes before the source, and an interpreter of its version runs that instead. The
// line runs on Python 2.7 and 3 and contains no single quote.
std::string pure_line(bool stream_on_stdio, const std::optional<WorkerCode>& code = {});

// The line for a `socketserver.py` of the released execnet: worker/socket_worker.py, and a call of it. Nothing may
// follow the line until the worker answers, because the server's buffered reader might swallow that. So it also
// contains `hello`, the coordinator's HELLO. If the server can fork, a child runs the worker.
std::string server_line(std::string_view hello);

// The path as a string literal that every Python 3 turns back into the same bytes for the system,
// whatever its locale: ASCII, with the bytes outside of it as the surrogates of PEP 383.
std::string path_literal(std::string_view path);

}  // namespace execnet::transport
