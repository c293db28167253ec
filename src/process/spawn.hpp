// Starts a program under a guard (guard/guard.cpp): when it ends, or this process does, nothing that it
// has started is left. The program has
//   - the descriptors it was given, the standard ones (0, 1, 2) that it was not given as they are
//     here, and no other;
//   - the signals ignored that are ignored here, as across any exec: nohup(1), a shell's background jobs and
//     programs that do so mean it for the whole family. SIGPIPE and SIGXFSZ are not: Python ignores them for itself,
//     and its subprocess.Popen (restore_signals) does the same. All other signals are handled by default;
//   - an empty signal mask, the caller's process group, directory and limits, that of descriptors as it was before
//     base::make_room_for_descriptors() raised it.
#pragma once

#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "process/process.hpp"

namespace execnet::process {

struct SpawnRequest {
  std::vector<std::string> argv;                             // argv[0] is looked up in PATH
  std::vector<std::pair<std::string, std::string>> set_env;  // on top of this process's environment
  std::vector<std::pair<int, int>> fds;                      // {descriptor here, number there}; may overlap
  bool isolate = false;                                      // in a PID namespace of its own
  Leniency leniency = {};
};

// The program itself cannot be run: it is missing (ENOENT), may not be executed (EACCES), is of no
// known format (ENOEXEC), its arguments are too long (E2BIG), ... Everything else that can go wrong,
// want of descriptors or processes say, is a plain std::system_error.
class ExecError : public std::system_error {
 public:
  using std::system_error::system_error;
};

// A PID namespace cannot be had: user namespaces are switched off (EPERM, ENOSPC), ...
class IsolationError : public std::system_error {
 public:
  using std::system_error::system_error;
};

// Returns when the program runs, that is after exec has succeeded. Any thread; reads
// `environ`, which nobody may be changing meanwhile.
// Throws ExecError, IsolationError, or std::system_error that names the step that failed; nothing is left then.
//   auto process = spawn({.argv = {"true"}, .set_env = {}, .fds = {}});
std::shared_ptr<Process> spawn(const SpawnRequest& request);

// The files that spawn tries to execute for argv[0], in this order: itself if it has a slash, else
// one in each directory of PATH, as `set_env` or else this process's environment has it.
std::vector<std::string> program_candidates(const std::string& program,
                                            const std::vector<std::pair<std::string, std::string>>& set_env);

}  // namespace execnet::process
