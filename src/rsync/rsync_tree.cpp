#include "rsync/rsync_tree.hpp"

#include <dirent.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <execnet/error.hpp>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "base/syscall.hpp"

namespace execnet::core {
namespace {

bool has_vanished(int error) { return error == ENOENT || error == ENOTDIR; }

// The names in a directory, sorted; none if it has vanished.
std::vector<std::string> names_in(const std::string& path) {
  std::vector<std::string> names;
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), ::closedir);
  if (!directory) {
    if (has_vanished(errno)) {
      return names;
    }
    base::throw_system_error(errno, "opendir", path);
  }
  for (;;) {
    errno = 0;
    const dirent* found = ::readdir(directory.get());  // NOLINT(concurrency-mt-unsafe): nobody shares it
    if (found == nullptr) {
      break;
    }
    const std::string_view name = found->d_name;
    if (name != "." && name != "..") {
      names.emplace_back(name);
    }
  }
  if (errno != 0) {
    base::throw_system_error(errno, "readdir", path);
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string below(const std::string& directory, std::string_view name) {
  std::string path = directory;
  if (!path.ends_with('/')) {
    path.push_back('/');
  }
  return path.append(name);
}

// Where a link leads; nothing if it has vanished.
std::optional<std::string> read_link(const std::string& path) {
  std::string target(256, '\0');
  for (;;) {
    const ssize_t size = ::readlink(path.c_str(), target.data(), target.size());
    if (size < 0) {
      if (has_vanished(errno) || errno == EINVAL) {
        return std::nullopt;
      }
      base::throw_system_error(errno, "readlink", path);
    }
    if (static_cast<std::size_t>(size) < target.size()) {
      target.resize(static_cast<std::size_t>(size));
      return target;
    }
    target.resize(target.size() * 2);
  }
}

}  // namespace

std::int64_t mtime_of(const struct stat& found) {
  return static_cast<std::int64_t>(found.st_mtim.tv_sec) * 1'000'000'000 + found.st_mtim.tv_nsec;
}

std::uint32_t permissions_of(const struct stat& found) { return found.st_mode & 07777U; }

SourceTree::SourceTree(const std::string& root, const std::function<bool(const std::string& path)>& wanted)
    : root_(root), absolute_root_(std::filesystem::absolute(root).lexically_normal().string()) {
  while (absolute_root_.size() > 1 && absolute_root_.ends_with('/')) {
    absolute_root_.pop_back();
  }
  struct stat found{};
  base::check("stat", [&] { return ::stat(root.c_str(), &found); }, root);
  TreeEntry entry;
  entry.mode = permissions_of(found);
  entry.mtime = mtime_of(found);
  if (S_ISDIR(found.st_mode)) {
    entry.kind = TreeEntry::Kind::kDirectory;
  } else if (S_ISREG(found.st_mode)) {
    entry.size = static_cast<std::uint64_t>(found.st_size);
  } else {
    throw SpecError("cannot sync '" + root + "': it is neither a directory nor a file");
  }
  entries_.push_back(std::move(entry));
  for (std::uint32_t number = 0; number < entries_.size(); ++number) {
    if (entries_[number].kind == TreeEntry::Kind::kDirectory) {
      list(number, wanted);
    }
  }
}

void SourceTree::list(std::uint32_t number, const std::function<bool(const std::string& path)>& wanted) {
  const std::string directory = path(number);
  entries_[number].first_child = static_cast<std::uint32_t>(entries_.size());
  for (std::string& name : names_in(directory)) {
    const std::string path = below(directory, name);
    if (!wanted(path)) {
      continue;
    }
    struct stat found{};
    if (::lstat(path.c_str(), &found) != 0) {
      if (has_vanished(errno)) {
        continue;
      }
      base::throw_system_error(errno, "lstat", path);
    }
    TreeEntry entry;
    entry.parent = number;
    entry.name = std::move(name);
    entry.mode = permissions_of(found);
    entry.mtime = mtime_of(found);
    if (S_ISDIR(found.st_mode)) {
      entry.kind = TreeEntry::Kind::kDirectory;
    } else if (S_ISREG(found.st_mode)) {
      entry.size = static_cast<std::uint64_t>(found.st_size);
    } else if (S_ISLNK(found.st_mode)) {
      auto link = read_link(path);
      if (!link) {
        continue;
      }
      entry.kind = TreeEntry::Kind::kLink;
      entry.link = std::move(*link);
      make_relative_if_inside(entry);
    } else {
      throw SpecError("cannot sync '" + path +
                      "': it is neither a file nor a directory nor a symbolic link. Leave it out with filter()");
    }
    if (entries_.size() == std::numeric_limits<std::uint32_t>::max()) {
      throw SpecError("cannot sync '" + root_ + "': there is too much in it");
    }
    entries_.push_back(std::move(entry));
  }
  entries_[number].children = static_cast<std::uint32_t>(entries_.size()) - entries_[number].first_child;
}

void SourceTree::make_relative_if_inside(TreeEntry& entry) const {
  if (!entry.link.starts_with('/')) {
    return;
  }
  const std::string target = std::filesystem::path(entry.link).lexically_normal().string();
  const std::string inside = below(absolute_root_, "");
  if (target == absolute_root_ || target == inside) {
    entry.link.clear();
  } else if (target.starts_with(inside)) {
    entry.link = target.substr(inside.size());
  } else {
    return;
  }
  entry.link_is_inside = true;
}

std::string SourceTree::relative(std::size_t number) const {
  std::vector<const std::string*> names;
  while (number != 0) {
    names.push_back(&entries_[number].name);
    number = entries_[number].parent;
  }
  std::string path;
  for (auto name = names.rbegin(); name != names.rend(); ++name) {
    path.append(path.empty() ? "" : "/").append(**name);
  }
  return path;
}

std::string SourceTree::path(std::size_t number) const { return number == 0 ? root_ : below(root_, relative(number)); }

}  // namespace execnet::core
