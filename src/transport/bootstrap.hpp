// The one line of Python on the command line of a new interpreter. Values; any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "transport/transport.hpp"

namespace execnet::transport {

// Loads our extension from the file `native_module`, without importing the package around it, and
// serves on kStreamFd.
std::string native_line(std::string_view native_module);

// For a fork server on kStreamFd: imports the modules, then forks workers, which serve as those of native_line
// and pure_line(false) do; pure ones if `native_module` is empty. Reads fork_server.py, and for pure
// workers worker.py, compressed, from there. On Python 2 it says that Python 3 is needed, and exits.
std::string fork_server_line(const std::vector<std::string>& modules, std::string_view native_module);

// What sh runs where only the standard descriptors can be given to a fork server: the program, an expression of the
// shell's, with the arguments, and with the descriptors where they are for others before there is an interpreter.
std::string fork_server_script(const std::string& program);

// Reads worker.py, compressed, from the stream and serves there: on descriptors 0 and 1, or on
// kStreamFd. Before it comes the code, if there is some, which an interpreter of its version takes instead. Runs on
// Python 2.7 and 3. Has no single quote in it.
std::string pure_line(bool stream_on_stdio, const std::optional<WorkerCode>& code = {});

// What a `socketserver.py` of the released execnet is sent: one line, and nothing after it until the
// worker answers, as its reading might swallow that. The worker is served by a forked child, where the
// server can, and finds the coordinator's HELLO, `hello`, in the line.
std::string server_line(std::string_view hello);

// The path as a string literal that every Python 3 turns back into the same bytes for the system,
// whatever its locale: ASCII, with the bytes outside of it as the surrogates of PEP 383.
std::string path_literal(std::string_view path);

}  // namespace execnet::transport
