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
#include <vector>

#include "base/fd.hpp"
#include "children.hpp"
#include "process/pidfd.hpp"

namespace execnet::process {
namespace {

// One line of the process table, as /proc/<pid>/stat has it.
struct Entry {
  pid_t parent = 0;
  char state = '?';
  unsigned long long start = 0;  // clock ticks after boot; with the pid, what tells processes apart
};
using Table = std::unordered_map<pid_t, Entry>;

template <typename Number>
Number number_in(std::string_view text) {
  Number number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

std::optional<Entry> read_entry(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  const base::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) {
    return std::nullopt;
  }
  char bytes[1024];
  const ssize_t size = ::read(file.get(), bytes, sizeof bytes);
  if (size <= 0) {
    return std::nullopt;
  }
  // "pid (name) state parent ...": the name may contain anything, so count from its last parenthesis.
  std::string_view text(bytes, static_cast<std::size_t>(size));
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string_view::npos || name_end + 2 >= text.size()) {
    return std::nullopt;
  }
  text.remove_prefix(name_end + 2);
  constexpr int kState = 3, kParent = 4, kStart = 22;  // as proc(5) numbers them
  Entry entry;
  for (int field = kState; field <= kStart; ++field) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (field == kState && end > 0) {
      entry.state = text[0];
    } else if (field == kParent) {
      entry.parent = number_in<pid_t>(text.substr(0, end));
    } else if (field == kStart) {
      entry.start = number_in<unsigned long long>(text.substr(0, end));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return entry;
}

Table read_table() {
  struct Close {
    void operator()(DIR* directory) const { ::closedir(directory); }
  };
  Table table;
  const std::unique_ptr<DIR, Close> directory(::opendir("/proc"));
  while (const dirent* item = directory ? ::readdir(directory.get()) : nullptr) {
    const pid_t pid = number_in<pid_t>(item->d_name);
    if (pid > 0) {
      if (const auto entry = read_entry(pid)) {
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
  int root_pidfd;  // -1 for descendants

  void signal(int number) const {
    if (root_pidfd >= 0) {
      static_cast<void>(pidfd_send_signal(root_pidfd, number));
      return;
    }
    // First the descriptor, then the look: if the start is still the same, the descriptor stands
    // for the process that was meant, even if that ends now.
    const base::Fd pidfd = pidfd_open(pid);
    const auto entry = read_entry(pid);
    if (pidfd && entry && entry->start == start) {
      static_cast<void>(pidfd_send_signal(pidfd.get(), number));
    }
  }
};

class Hunt {
 public:
  explicit Hunt(std::span<Process* const> roots) {
    for (const Process* root : roots) {
      const auto entry = read_entry(root->pid());
      // Looked at in this order, an entry is the root's own and not that of a later process.
      if (!pidfd_ended(root->end_fd())) {
        add({root->pid(), entry ? entry->start : 0, 0, root->end_fd()});
      }
    }
  }

  // Stops everything that is known and looks for children, until nobody new is found and nobody
  // known still runs: only then can nobody fork any more.
  void stop_all() {
    // A process that somebody else keeps waking up must not hold us for ever.
    constexpr int kRounds = 50;
    for (int round = 0; round < kRounds; ++round) {
      const Table table = read_table();
      const std::size_t before = victims_.size();
      add_descendants(table);
      const bool running = std::any_of(victims_.begin(), victims_.end(), [&](const Victim& victim) {
        const Entry* entry = entry_of(victim, table);
        return entry != nullptr && (entry->state == 'R' || entry->state == 'S');
      });
      if (victims_.size() == before && !running) {
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
    victim.signal(SIGSTOP);
    index_of_.insert_or_assign(victim.pid, victims_.size());
    victims_.push_back(victim);
  }

  // None when the victim has ended and its number is free or somebody else's.
  static const Entry* entry_of(const Victim& victim, const Table& table) {
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

  void add_descendants(const Table& table) {
    for (bool found = true; found;) {
      found = false;
      for (const auto& [pid, entry] : table) {
        const Victim* parent = known(entry.parent, table);
        if (parent != nullptr && known(pid, table) == nullptr) {
          add({pid, entry.start, parent->depth + 1, -1});
          found = true;
        }
      }
    }
  }

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
