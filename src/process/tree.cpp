#include "process/tree.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "children.hpp"
#include "process/pidfd.hpp"
#include "process/stat.hpp"

namespace execnet::process {
namespace {

using Table = std::unordered_map<pid_t, Stat>;

Table read_table() {
  struct Close {
    void operator()(DIR* directory) const { ::closedir(directory); }
  };
  Table table;
  const std::unique_ptr<DIR, Close> directory(::opendir("/proc"));
  while (const dirent* item = directory ? ::readdir(directory.get()) : nullptr) {
    const std::string_view name = item->d_name;
    pid_t pid = 0;
    std::from_chars(name.data(), name.data() + name.size(), pid);
    if (pid > 0) {
      if (const auto entry = read_stat(pid)) {
        table.emplace(pid, *entry);
      }
    }
  }
  return table;
}

// A process that is to die. Descendants are held by pid and start, not by an open descriptor: a
// coordinator that has none left must still be able to end its fleet.
struct Victim {
  pid_t pid;
  unsigned long long start;
  std::size_t depth;
  int root_pidfd;                     // -1 for descendants
  std::optional<pid_t> kept_without;  // the session of a root that keeps what is detached: what is in it is not

  void signal(int number) const {
    if (root_pidfd >= 0) {
      static_cast<void>(pidfd_send_signal(root_pidfd, number));
      return;
    }
    // First the descriptor, then the look: if the start is still the same, the descriptor stands
    // for the process that was meant, even if that ends now.
    const base::Fd pidfd = pidfd_open(pid);
    const auto entry = read_stat(pid);
    if (pidfd && entry && entry->start == start) {
      static_cast<void>(pidfd_send_signal(pidfd.get(), number));
    }
  }
};

// This process and those above it, which no hunt may touch, whatever led to them.
std::vector<pid_t> own_line() {
  std::vector<pid_t> line;
  for (pid_t pid = ::getpid(); pid > 0;) {
    line.push_back(pid);
    const auto entry = read_stat(pid);
    pid = entry ? entry->parent : 0;
  }
  return line;
}

class Hunt {
 public:
  explicit Hunt(std::span<Process* const> roots) : spared_(own_line()) {
    for (const Process* root : roots) {
      const auto entry = read_stat(root->pid());
      // Looked at in this order, an entry is the root's own and not that of a later process.
      if (!pidfd_ended(root->end_fd())) {
        std::optional<pid_t> kept_without;
        if (entry && root->keeps_detached()) {
          kept_without = entry->session;  // 0 where it was started in another PID namespace
        }
        add({root->pid(), entry ? entry->start : 0, 0, root->end_fd(), kept_without});
      }
    }
  }

  // Stops everything that is known and looks for children, until nobody new is found although nobody known still ran
  // at the look before: only then can nobody fork any more. At the same look would be too early, for the names are read
  // before the states.
  void stop_all() {
    // A process that somebody else keeps waking up must not hold us for ever.
    constexpr int kRounds = 50;
    bool stopped = false;
    for (int round = 0; round < kRounds; ++round) {
      const Table table = read_table();
      const std::size_t before = victims_.size();
      add_descendants(table);
      const bool running = std::any_of(victims_.begin(), victims_.end(), [&](const Victim& victim) {
        const Stat* entry = entry_of(victim, table);
        return entry != nullptr && (entry->state == 'R' || entry->state == 'S');
      });
      if (std::exchange(stopped, !running) && victims_.size() == before) {
        return;
      }
    }
  }

  // Children before parents: a stopped process whose parent dies may be sent SIGCONT by the kernel
  // (its process group is orphaned then) and would fork on before its own SIGKILL.
  void kill_all() {
    std::stable_sort(victims_.begin(), victims_.end(),
                     [](const Victim& a, const Victim& b) { return a.depth > b.depth; });
    for (const Victim& victim : victims_) {
      victim.signal(SIGKILL);
    }
  }

 private:
  void add(const Victim& victim) {
    if (std::find(spared_.begin(), spared_.end(), victim.pid) != spared_.end()) {
      return;
    }
    victim.signal(SIGSTOP);
    index_of_.insert_or_assign(victim.pid, victims_.size());
    victims_.push_back(victim);
  }

  // None when the victim has ended and its number is free or somebody else's.
  static const Stat* entry_of(const Victim& victim, const Table& table) {
    const auto found = table.find(victim.pid);
    return found != table.end() && found->second.start == victim.start ? &found->second : nullptr;
  }

  const Victim* known(pid_t pid, const Table& table) const {
    const auto index = index_of_.find(pid);
    if (index == index_of_.end() || entry_of(victims_[index->second], table) == nullptr) {
      return nullptr;
    }
    return &victims_[index->second];
  }

  // Not in the session of the root, nor in that in which it was started, which is ours.
  [[nodiscard]] bool is_kept(const Stat& entry, const Victim& parent) const {
    return parent.kept_without && !entry.is_guard && entry.session != parent.kept_without &&
           entry.session != own_session_;
  }

  void add_descendants(const Table& table) {
    for (bool found = true; found;) {
      found = false;
      for (const auto& [pid, entry] : table) {
        const Victim* parent = known(entry.parent, table);
        if (parent != nullptr && known(pid, table) == nullptr) {
          if (is_kept(entry, *parent)) {
            continue;
          }
          add({pid, entry.start, parent->depth + 1, -1, parent->kept_without});
          found = found || known(pid, table) != nullptr;
        }
      }
    }
  }

  const std::vector<pid_t> spared_;
  const pid_t own_session_ = ::getsid(0);
  std::vector<Victim> victims_;
  std::unordered_map<pid_t, std::size_t> index_of_;
};

}  // namespace

void kill_trees(std::span<Process* const> roots) {
  std::vector<Process*> unguarded;
  for (Process* root : roots) {
    if (!root->have_guard_kill()) {
      unguarded.push_back(root);
    }
  }
  if (unguarded.empty()) {
    return;
  }
  if (!guard::proc_is_ours()) {
    for (Process* root : unguarded) {
      static_cast<void>(pidfd_send_signal(root->end_fd(), SIGKILL));
    }
    return;
  }
  Hunt hunt(unguarded);
  hunt.stop_all();
  hunt.kill_all();
}

}  // namespace execnet::process
