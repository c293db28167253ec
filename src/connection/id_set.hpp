// A set of channel ids that stays small. The ids of one side are every second number, and nearly all of them end up
// here, so the set keeps runs. Guarded by its owner.
#pragma once

#include <cstdint>
#include <iterator>
#include <map>

namespace execnet::core {

class IdSet {
 public:
  void insert(std::uint32_t id) {
    if (contains(id)) {
      return;
    }
    std::uint32_t first = id;
    std::uint32_t last = id;
    const auto after = runs_.upper_bound(id);
    if (after != runs_.end() && after->first - 2 == id) {
      last = after->second;
      runs_.erase(after);
    }
    const auto next = runs_.upper_bound(id);
    if (next != runs_.begin()) {
      const auto before = std::prev(next);
      if (before->second + 2 == id) {
        first = before->first;
        runs_.erase(before);
      }
    }
    runs_[first] = last;
  }

  // REQUIRES: id has the parity of the ids in the set.
  [[nodiscard]] bool contains(std::uint32_t id) const {
    const auto after = runs_.upper_bound(id);
    return after != runs_.begin() && std::prev(after)->second >= id;
  }

  [[nodiscard]] std::size_t runs() const { return runs_.size(); }

 private:
  std::map<std::uint32_t, std::uint32_t> runs_;  // first -> last, in steps of two
};

}  // namespace execnet::core
