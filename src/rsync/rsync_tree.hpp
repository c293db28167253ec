// What RSync copies, as it is found at the start: the names, kinds, modes, sizes and times of a tree.
//
// Another user may change the tree at any moment. So it is read by descriptors, from that of its root on, and no
// link below the root is followed.
//
// Owner: the send() that runs, on its thread.
#pragma once

#include <sys/stat.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"

namespace execnet::core {

struct TreeEntry {
  enum class Kind : std::uint8_t { kDirectory, kFile, kLink };

  Kind kind = Kind::kFile;
  bool link_is_inside = false;  // the link leads into the tree: `link` is relative to its root
  bool unreadable = false;      // a directory that may not be read: what is in it is not known
  std::uint32_t parent = 0;
  std::uint32_t first_child = 0;
  std::uint32_t children = 0;
  std::uint32_t mode = 0;  // the permission bits
  std::uint64_t size = 0;  // of a file
  std::int64_t mtime = 0;  // nanoseconds since the epoch
  std::string name;        // empty for the root
  std::string link;
};

// Entries are known by their number: 0 is the root, and the entries of one directory are numbered
// one after the other, in the order in which the directories themselves are.
class SourceTree {
 public:
  // Leaves out what `wanted` (called with the path of everything but the root) says no to. A thing that
  // vanishes meanwhile is not there. The root may be a link; others are not followed.
  // Throws std::system_error for a root that cannot be read, SpecError for what is neither file nor directory nor link.
  SourceTree(const std::string& root, const std::function<bool(const std::string& path)>& wanted);

  [[nodiscard]] std::size_t size() const { return entries_.size(); }
  [[nodiscard]] const TreeEntry& operator[](std::size_t number) const { return entries_[number]; }
  // For errors and filters, as the program names it.
  [[nodiscard]] std::string path(std::size_t number) const;
  // Below the root, "a/b"; empty for the root.
  [[nodiscard]] std::string relative(std::size_t number) const;
  // Opens it for reading, without waiting for what has become a FIFO meanwhile. None if it has vanished.
  // Throws std::system_error.
  [[nodiscard]] base::Fd open(std::uint32_t number, int flags = 0) const;

 private:
  // A descriptor of that directory, good until the next call; below 0 if it has vanished.
  [[nodiscard]] int enter(std::uint32_t number) const;
  // None if it has vanished, or is unreadable and marked so.
  [[nodiscard]] base::Fd open_to_list(std::uint32_t number);
  void list(std::uint32_t number, const std::function<bool(const std::string& path)>& wanted);
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
// Whether the error says that the user of this program may not read something that is there.
[[nodiscard]] constexpr bool is_forbidden(int error) { return error == EACCES || error == EPERM; }

}  // namespace execnet::core
