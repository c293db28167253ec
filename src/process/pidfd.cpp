#include "process/pidfd.hpp"

#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <system_error>

namespace execnet::process {
namespace {

// The same on every architecture but alpha; not every header we are built with has the names.
constexpr long kPidfdSendSignal = 424;
constexpr long kPidfdOpen = 434;
constexpr int kWaitForPidfd = 3;  // P_PIDFD

}  // namespace

base::Fd pidfd_open(pid_t pid) { return base::Fd(static_cast<int>(::syscall(kPidfdOpen, pid, 0))); }

int pidfd_send_signal(int pidfd, int number) {
  return static_cast<int>(::syscall(kPidfdSendSignal, pidfd, number, nullptr, 0));
}

int pidfd_waitid(int pidfd, siginfo_t* info, int options) {
  return ::waitid(static_cast<idtype_t>(kWaitForPidfd), static_cast<id_t>(pidfd), info, options);
}

bool pidfd_ended(int pidfd) {
  pollfd entry{.fd = pidfd, .events = POLLIN, .revents = 0};
  return ::poll(&entry, 1, 0) > 0;
}

std::string pid_namespace() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/ns/pid", error).string();
}

}  // namespace execnet::process
