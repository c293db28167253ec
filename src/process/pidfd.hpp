// The pidfd system calls, for C libraries whose headers are older than the kernel. Linux 5.4 and up.
// Any thread.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <string>

#include "base/fd.hpp"

namespace execnet::process {

// A close-on-exec descriptor that stands for the process and for no later one of the same number;
// readable when the process has ended. Invalid, with errno set, when there is no such process
// (ESRCH), no descriptor left (EMFILE, ENFILE) or no such call (ENOSYS).
base::Fd pidfd_open(pid_t pid);

// 0, or -1 with errno set: ESRCH when the process has ended and was collected.
int pidfd_send_signal(int pidfd, int number);

// waitid(2) for the child behind the descriptor.
int pidfd_waitid(int pidfd, siginfo_t* info, int options);

// Whether the process behind the descriptor has ended, collected or not. Does not wait.
bool pidfd_ended(int pidfd);

// The namespace that the pids of this process are of, as a name; empty if that is not known.
std::string pid_namespace();

}  // namespace execnet::process
