// Whether the kernel's out-of-memory killer has ended a process.
//
// The kernel says so in two places: its log, which names the process and which not everybody may read, and the control
// group of the process, which only counts. Values; any thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "process/process.hpp"

namespace execnet::process {

// Where the kernel says it.
struct KernelFiles {
  std::string proc = "/proc";
  std::string log = "/dev/kmsg";
};

// How a control group counts what the out-of-memory killer has ended in it.
struct OomCount {
  std::string group;           // "/user.slice"
  std::string file;            // .../memory.events (version 2) or .../memory.oom_control (version 1)
  std::uint64_t at_first = 0;  // what it said when this was made

  // What it says now; none if it cannot be read any more.
  [[nodiscard]] std::optional<std::uint64_t> now() const;
};

class OomWatch {
 public:
  // To be made while the process runs, which is when the kernel tells its control group. REQUIRES of verdict():
  // the process was in it when it died. What cannot be read is left out; nothing is thrown for that.
  explicit OomWatch(pid_t pid, KernelFiles files = {});

  // From now on it is about this process, and the control group that it is in now: what stood before an interpreter may
  // have started it as another process, or moved it to another group. What cannot be read stays as it was.
  void follow(pid_t pid);

  // The same for a process of the same control group that started later.
  [[nodiscard]] OomWatch of(pid_t pid) const;

  // For a process that died of a SIGKILL that we have not sent: "killed by the out-of-memory killer", and where that is
  // known from. Either the kernel's log names the process, or its control group has counted such an end since this
  // was made. None if the kernel says no such thing. Does not wait.
  [[nodiscard]] std::optional<std::string> verdict() const;

 private:
  [[nodiscard]] bool is_in_log() const;

  pid_t pid_;
  KernelFiles files_;
  std::int64_t since_;  // microseconds, on the clock of the kernel's log
  std::vector<OomCount> counts_;
};

// How a process ended that we have not killed: what `status` says of itself, and the verdict if there is one.
std::string describe_end(const ExitStatus& status, const OomWatch& oom);

// The counts for a process, of all hierarchies that have one.
std::vector<OomCount> oom_counts(pid_t pid, const std::string& proc);

}  // namespace execnet::process
