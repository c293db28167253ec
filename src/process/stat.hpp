// One line of the process table. Any thread.
#pragma once

#include <sys/types.h>

#include <optional>

namespace execnet::process {

struct Stat {
  pid_t parent = 0;
  pid_t session = 0;
  bool is_guard = false;  // of our guards, which call themselves so (guard/guard.cpp, worker/execnet_worker/guard.py)
  char state = '?';
  unsigned long long start = 0;  // clock ticks after boot; with the pid, what tells processes apart
  friend bool operator==(const Stat&, const Stat&) = default;
};

// What /proc/PID/stat says; none when there is no such process, or no /proc.
std::optional<Stat> read_stat(pid_t pid);

}  // namespace execnet::process
