// Runs a part of a test in a process of its own, where it may change what holds for all of a process.
#pragma once

#include <functional>
#include <string>

namespace execnet::testing {

// What `part` returned there, or the text of the exception that it threw.
std::string elsewhere(const std::function<std::string()>& part);

// The same in the first process of a new PID namespace, with a /proc that shows it. Who may not have one gets
// a text that begins with "skipped: " and the reason.
std::string in_pid_namespace(const std::function<std::string()>& part);

// Puts an empty directory in the place of /proc, for this process and what it starts. False with errno set if it may not.
bool hide_proc();

// From now on a system call fails with `error` in this process and all that it starts, if bits of `mask` are set in its
// second argument; without a mask always. For the rest of the life of this process. Throws std::system_error.
void refuse_system_call(long number, int error, unsigned mask = 0);

}  // namespace execnet::testing
