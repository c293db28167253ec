#include "process/descent.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "children.hpp"
#include "process/pidfd.hpp"
#include "process/stat.hpp"

namespace execnet::process {
namespace {

constexpr int kMostAncestors = 64;
constexpr int kTries = 5;  // a process whose parent ends is given to another one

using Chain = std::vector<std::pair<pid_t, Stat>>;

// The process, its parent, and so on up to `root`; empty when it does not get there.
Chain ancestors(pid_t pid, pid_t root) {
  Chain chain;
  while (pid > 1 && chain.size() < kMostAncestors) {
    const auto stat = read_stat(pid);
    if (!stat) {
      break;
    }
    chain.emplace_back(pid, *stat);
    if (pid == root) {
      return chain;
    }
    pid = stat->parent;
  }
  return {};
}

// But for their state, which may change all the time.
bool are_same(const Chain& a, const Chain& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& one, const auto& other) {
    return one.first == other.first && one.second.parent == other.second.parent &&
           one.second.start == other.second.start;
  });
}

}  // namespace

Descent::Descent(const Process& root) : root_(root), root_pid_(root.root_pid()) {}

Descent::Found Descent::find(pid_t pid) {
  if (pid <= 1 || pid == root_pid_) {
    return {Kind::kOthers};
  }
  base::Fd pidfd = pidfd_open(pid);
  if (!pidfd) {
    return {};
  }
  if (!guard::proc_is_ours()) {
    return {Kind::kUnknown, std::move(pidfd)};
  }
  if (!(parent_ && is_child_of(*parent_, pid)) && !pidfd_ended(pidfd.get())) {
    if (!reaches_root(pid) || pidfd_ended(root_.end_fd())) {
      return read_stat(pid) ? Found{Kind::kOthers} : Found{Kind::kUnknown, std::move(pidfd)};
    }
    const auto stat = read_stat(pid);
    const pid_t parent = stat ? stat->parent : 0;
    base::Fd parent_fd = parent > 1 ? pidfd_open(parent) : base::Fd();
    parent_.reset();
    if (parent_fd && reaches_root(parent) && !pidfd_ended(parent_fd.get())) {
      parent_.emplace(Parent{parent, std::move(parent_fd)});
    }
  }
  return {Kind::kOurs, std::move(pidfd)};
}

bool Descent::reaches_root(pid_t pid) const {
  for (int left = kTries; left > 0; --left) {
    const Chain chain = ancestors(pid, root_pid_);
    if (!chain.empty() && are_same(chain, ancestors(pid, root_pid_))) {
      return true;
    }
  }
  return false;
}

// As long as the parent is there, nobody else has its number.
bool Descent::is_child_of(const Parent& parent, pid_t pid) const {
  const auto stat = read_stat(pid);
  return stat && stat->parent == parent.pid && !pidfd_ended(parent.pidfd.get());
}

}  // namespace execnet::process
