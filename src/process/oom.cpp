#include "process/oom.hpp"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <fstream>
#include <sstream>
#include <string_view>
#include <utility>

#include "base/fd.hpp"

namespace execnet::process {
namespace {

// A hierarchy of control groups that counts memory, and where it is mounted.
struct Hierarchy {
  bool unified = false;  // version 2
  std::string root;      // which group the mount shows as its top
  std::string mount_point;
};

bool has_word(const std::string& list, std::string_view word) {
  std::stringstream words(list);
  for (std::string one; std::getline(words, one, ',');) {
    if (one == word) {
      return true;
    }
  }
  return false;
}

// "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory"
std::vector<Hierarchy> memory_hierarchies(const std::string& proc) {
  std::vector<Hierarchy> found;
  std::ifstream mounts(proc + "/self/mountinfo");
  for (std::string line; std::getline(mounts, line);) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos) {
      continue;
    }
    std::stringstream fields(line.substr(0, dash));
    std::stringstream rest(line.substr(dash + 3));
    std::string skipped, type, source, options;
    Hierarchy one;
    fields >> skipped >> skipped >> skipped >> one.root >> one.mount_point;
    rest >> type >> source >> options;
    one.unified = type == "cgroup2";
    if (one.unified || (type == "cgroup" && has_word(options, "memory"))) {
      found.push_back(std::move(one));
    }
  }
  return found;
}

// The group of a process: "4:memory:/jobs" (version 1) and "0::/jobs" (version 2). Empty if it has none there.
std::string group_of(pid_t pid, const Hierarchy& hierarchy, const std::string& proc) {
  std::ifstream groups(proc + "/" + std::to_string(pid) + "/cgroup");
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) {
      continue;
    }
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (hierarchy.unified ? controllers.empty() : has_word(controllers, "memory")) {
      return line.substr(second + 1);
    }
  }
  return "";
}

}  // namespace

std::optional<std::uint64_t> OomCount::now() const {
  std::ifstream lines(file);
  std::string name;
  for (std::uint64_t count = 0; lines >> name >> count;) {
    if (name == "oom_kill") {
      return count;
    }
  }
  return std::nullopt;
}

std::vector<OomCount> oom_counts(pid_t pid, const std::string& proc) {
  std::vector<OomCount> counts;
  for (const Hierarchy& hierarchy : memory_hierarchies(proc)) {
    const std::string group = group_of(pid, hierarchy, proc);
    if (group.empty()) {
      continue;
    }
    const bool below = hierarchy.root != "/" && group.starts_with(hierarchy.root);
    OomCount count;
    count.group = group;
    count.file = hierarchy.mount_point + '/' + (below ? group.substr(hierarchy.root.size()) : group) +
                 (hierarchy.unified ? "/memory.events" : "/memory.oom_control");
    if (const auto now = count.now()) {
      count.at_first = *now;
      counts.push_back(std::move(count));
    }
  }
  return counts;
}

OomWatch::OomWatch(pid_t pid, KernelFiles files)
    : pid_(pid), files_(std::move(files)), counts_(oom_counts(pid, files_.proc)) {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  since_ = std::int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000;
}

void OomWatch::follow(pid_t pid) {
  pid_ = pid;
  if (std::vector<OomCount> counts = oom_counts(pid, files_.proc); !counts.empty()) {
    counts_ = std::move(counts);
  }
}

OomWatch OomWatch::of(pid_t pid) const {
  OomWatch other = *this;
  other.pid_ = pid;
  return other;
}

std::optional<std::string> OomWatch::verdict() const {
  if (is_in_log()) {
    return "killed by the out-of-memory killer, as the kernel's log says";
  }
  for (const OomCount& count : counts_) {
    if (count.now().value_or(0) > count.at_first) {
      return "killed by the out-of-memory killer, as its control group " + count.group + " has counted";
    }
  }
  return std::nullopt;
}

std::string describe_end(const ExitStatus& status, const OomWatch& oom) {
  const auto verdict = status.signal == SIGKILL ? oom.verdict() : std::nullopt;
  return status.describe() + (verdict ? "; " + *verdict : "");
}

// "3,812,31415926,-;Memory cgroup out of memory: Killed process 123 (python3) total-vm:...": one record for each read.
bool OomWatch::is_in_log() const {
  const base::Fd log(::open(files_.log.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  const std::string wanted = "Killed process " + std::to_string(pid_) + " (";
  std::array<char, 8192> record;
  while (log) {
    const ssize_t size = ::read(log.get(), record.data(), record.size());
    if (size < 0 && (errno == EPIPE || errno == EINTR)) {
      continue;  // the oldest ones were overwritten meanwhile
    }
    if (size <= 0) {
      return false;
    }
    const std::string_view text(record.data(), static_cast<std::size_t>(size));
    const std::size_t time_at = text.find(',', text.find(',') + 1) + 1;
    std::int64_t time = 0;
    std::from_chars(text.data() + time_at, text.data() + text.size(), time);
    if (time >= since_ && text.find(wanted) != std::string_view::npos) {
      return true;
    }
  }
  return false;
}

}  // namespace execnet::process
