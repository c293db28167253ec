// Runs a part of a test in a process of its own, where it may change settings of the whole process.
#pragma once

#include <functional>
#include <string>

namespace execnet::testing {

// Returns what `part` returned there, or the text of the exception that it threw.
std::string elsewhere(const std::function<std::string()>& part);

// The same in the first process of a new PID namespace, with its own /proc. Where such a namespace is not allowed,
// returns a text that begins with "skipped: " and the reason.
std::string in_pid_namespace(const std::function<std::string()>& part);

// Puts an empty directory in the place of /proc, for this process and what it starts. False with errno set if it may
// not.
bool hide_proc();

// Makes a system call fail with `error` in this process and all that it starts, for the rest of its life. With a mask
// it fails only if one of these bits is set in its second argument. Throws std::system_error.
void refuse_system_call(long number, int error, unsigned mask = 0);

}  // namespace execnet::testing
