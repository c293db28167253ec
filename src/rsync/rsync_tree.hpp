// What RSync copies, as it is found at the start: the names, kinds, modes, sizes and times of a tree.
//
// Another user may change the tree at any moment. So it is read by descriptors, from that of its root on, and no
// link below the root is followed.
//
// Owner: the send() that runs, on its thread.
#pragma once

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "base/fd.hpp"
#include "base/syscall.hpp"

namespace execnet::core {

struct TreeEntry {
  enum class Kind : std::uint8_t { kDirectory, kFile, kLink };

  Kind kind = Kind::kFile;
  bool link_is_inside = false;  // the link leads into the tree: `link` is relative to its root
  // Of a directory, that what is in it is not known; of a file, that nothing is, not even whether it is one. A target
  // keeps what it has of it.
  bool unreadable = false;
  std::uint32_t parent = 0;
  std::uint32_t first_child = 0;
  std::uint32_t children = 0;
  std::uint32_t mode = 0;  // the permission bits
  std::uint64_t size = 0;  // of a file
  std::int64_t mtime = 0;  // nanoseconds since the epoch
  std::string name;        // empty for the root
  std::string link;
};

// Something of the source is there and cannot be read, for a reason of its own: permissions, a disk that is broken, a
// server that does not answer. That this process lacks descriptors or memory is no such reason.
class Unreadable : public std::system_error {
 public:
  explicit Unreadable(const std::system_error& failure) : std::system_error(failure) {}
};

// For a call that has failed with `error`. Throws Unreadable, or std::system_error for what this process lacks.
[[noreturn]] void throw_unreadable(int error, std::string_view call, const std::string& path);

// As base::check(), with that.
template <typename Call>
auto check_reading(std::string_view name, Call&& call, const std::string& path) {
  try {
    return base::check(name, std::forward<Call>(call), path);
  } catch (const std::system_error& error) {
    throw_unreadable(error.code().value(), name, path);
  }
}

// Entries are known by their number: 0 is the root, and the entries of one directory are numbered
// one after the other, in the order in which the directories themselves are.
class SourceTree {
 public:
  // Leaves out what `wanted` (called with the path of everything but the root) says no to. A thing that
  // vanishes meanwhile is not there. The root may be a link; others are not followed.
  // Throws std::system_error for a root that cannot be read; what else cannot be is an unreadable entry. Throws
  // SpecError for what is neither file nor directory nor link.
  SourceTree(const std::string& root, const std::function<bool(const std::string& path)>& wanted);

  [[nodiscard]] std::size_t size() const { return entries_.size(); }
  [[nodiscard]] const TreeEntry& operator[](std::size_t number) const { return entries_[number]; }
  // For errors and filters, as the program names it.
  [[nodiscard]] std::string path(std::size_t number) const;
  // Below the root, "a/b"; empty for the root.
  [[nodiscard]] std::string relative(std::size_t number) const;
  // Opens it for reading, without waiting for what has become a FIFO meanwhile. None if it has vanished.
  // Throws Unreadable, std::system_error.
  [[nodiscard]] base::Fd open(std::uint32_t number, int flags = 0) const;

 private:
  // A descriptor of that directory, good until the next call; below 0 if it has vanished.
  [[nodiscard]] int enter(std::uint32_t number) const;
  void list(std::uint32_t number, const std::function<bool(const std::string& path)>& wanted);
  // Throws Unreadable if not even the names, or nothing but the names, can be read.
  void list_opened(std::uint32_t number, base::Fd opened, const std::function<bool(const std::string& path)>& wanted);
  // What has that name in an open directory; none if it has vanished. Throws Unreadable, SpecError.
  [[nodiscard]] std::optional<TreeEntry> look_at(int directory, const std::string& name, const std::string& path) const;
  // Where the link leads into the tree, it must do so at the destination.
  void make_relative_if_inside(TreeEntry& entry) const;

  std::string root_;
  std::string absolute_root_;
  base::Fd root_directory_;  // none if the root is a file
  std::vector<TreeEntry> entries_;
  // The directory that was entered last, 0 for none: files come in the order of their directories.
  mutable std::uint32_t entered_ = 0;
  mutable base::Fd entered_directory_;
};

[[nodiscard]] std::int64_t mtime_of(const struct stat& found);
[[nodiscard]] std::uint32_t permissions_of(const struct stat& found);

}  // namespace execnet::core
