#include "rsync/rsync_tree.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <execnet/error.hpp>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>

#include "base/syscall.hpp"

namespace execnet::core {
namespace {

// Something else may have taken the place of what vanished.
bool has_vanished(int error) { return error == ENOENT || error == ENOTDIR || error == ELOOP || error == ENXIO; }

using OpenDirectory = std::unique_ptr<DIR, int (*)(DIR*)>;

OpenDirectory to_read(base::Fd directory, const std::string& path) {
  OpenDirectory open(::fdopendir(directory.get()), ::closedir);
  if (!open) {
    base::throw_system_error(errno, "fdopendir", path);
  }
  static_cast<void>(directory.release());  // closedir() closes it
  return open;
}

// The names in a directory, sorted.
std::vector<std::string> names_in(DIR* directory, const std::string& path) {
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* found = ::readdir(directory);  // NOLINT(concurrency-mt-unsafe): nobody shares it
    if (found == nullptr) {
      break;
    }
    const std::string_view name = found->d_name;
    if (name != "." && name != "..") {
      names.emplace_back(name);
    }
  }
  if (errno != 0) {
    throw_unreadable(errno, "readdir", path);
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

// What is there, without its name and, of a link, where it leads. Nothing if it is of no kind that can be sent.
std::optional<TreeEntry> entry_of(const struct stat& found) {
  TreeEntry entry;
  entry.mode = permissions_of(found);
  entry.mtime = mtime_of(found);
  if (S_ISDIR(found.st_mode)) {
    entry.kind = TreeEntry::Kind::kDirectory;
  } else if (S_ISREG(found.st_mode)) {
    entry.size = static_cast<std::uint64_t>(found.st_size);
  } else if (S_ISLNK(found.st_mode)) {
    entry.kind = TreeEntry::Kind::kLink;
  } else {
    return std::nullopt;
  }
  return entry;
}

// What cannot be looked at. As a file that no target can have already, each asks for it, and is told to keep what it
// has.
TreeEntry unknown_entry() {
  TreeEntry entry;
  entry.unreadable = true;
  entry.mtime = std::numeric_limits<std::int64_t>::min();
  return entry;
}

// Where a link leads; nothing if it has vanished.
std::optional<std::string> read_link(int directory, const std::string& name, const std::string& path) {
  std::string target(256, '\0');
  for (;;) {
    const ssize_t size = ::readlinkat(directory, name.c_str(), target.data(), target.size());
    if (size < 0) {
      if (has_vanished(errno) || errno == EINVAL) {
        return std::nullopt;
      }
      throw_unreadable(errno, "readlinkat", path);
    }
    if (static_cast<std::size_t>(size) < target.size()) {
      target.resize(static_cast<std::size_t>(size));
      return target;
    }
    target.resize(target.size() * 2);
  }
}

// Whether more can be read of a directory than the names in it.
bool may_be_searched(int directory) {
  struct stat found{};
  return ::fstatat(directory, ".", &found, 0) == 0;
}

}  // namespace

void throw_unreadable(int error, std::string_view call, const std::string& path) {
  try {
    base::throw_system_error(error, call, path);
  } catch (const std::system_error& failure) {
    if (error == EMFILE || error == ENFILE || error == ENOMEM) {
      throw;
    }
    throw Unreadable(failure);
  }
}

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
  if (S_ISDIR(found.st_mode)) {
    root_directory_ = base::Fd(base::check(
        "open", [&] { return ::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC); }, root));
  }
  auto entry = entry_of(found);
  if (!entry) {
    throw SpecError("cannot sync '" + root + "': it is neither a directory nor a file");
  }
  entries_.push_back(std::move(*entry));
  for (std::uint32_t number = 0; number < entries_.size(); ++number) {
    if (entries_[number].kind == TreeEntry::Kind::kDirectory) {
      list(number, wanted);
    }
  }
}

base::Fd SourceTree::open(std::uint32_t number, int flags) const {
  flags |= O_RDONLY | O_NONBLOCK | O_CLOEXEC;
  base::Fd fd;
  if (number == 0) {
    fd.reset(root_directory_ ? ::openat(root_directory_.get(), ".", flags) : ::open(root_.c_str(), flags));
  } else {
    const int directory = enter(entries_[number].parent);
    if (directory < 0) {
      return {};
    }
    fd.reset(::openat(directory, entries_[number].name.c_str(), flags | O_NOFOLLOW));
  }
  if (!fd && !has_vanished(errno)) {
    throw_unreadable(errno, "open", path(number));
  }
  return fd;
}

int SourceTree::enter(std::uint32_t number) const {
  std::vector<std::uint32_t> way;  // to it, backwards, from what is open
  std::uint32_t from = number;
  for (; from != 0 && from != entered_; from = entries_[from].parent) {
    way.push_back(from);
  }
  int directory = from == 0 ? root_directory_.get() : entered_directory_.get();
  for (; !way.empty(); way.pop_back()) {
    const char* name = entries_[way.back()].name.c_str();
    base::Fd inner(::openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!inner) {
      if (has_vanished(errno)) {
        return -1;
      }
      throw_unreadable(errno, "open", path(way.back()));
    }
    entered_ = way.back();
    entered_directory_ = std::move(inner);
    directory = entered_directory_.get();
  }
  return directory;
}

void SourceTree::list(std::uint32_t number, const std::function<bool(const std::string& path)>& wanted) {
  const std::size_t first_child = entries_.size();
  try {
    if (base::Fd opened = open(number, O_DIRECTORY)) {
      list_opened(number, std::move(opened), wanted);
    }
  } catch (const Unreadable&) {
    if (number == 0) {
      throw;
    }
    entries_.resize(first_child);
    entries_[number].unreadable = true;
  }
  entries_[number].first_child = static_cast<std::uint32_t>(first_child);
  entries_[number].children = static_cast<std::uint32_t>(entries_.size() - first_child);
}

void SourceTree::list_opened(std::uint32_t number, base::Fd opened,
                             const std::function<bool(const std::string& path)>& wanted) {
  const std::string directory = path(number);
  const OpenDirectory open = to_read(std::move(opened), directory);
  const int fd = ::dirfd(open.get());
  for (std::string& name : names_in(open.get(), directory)) {
    const std::string path = below(directory, name);
    if (!wanted(path)) {
      continue;
    }
    std::optional<TreeEntry> entry;
    try {
      entry = look_at(fd, name, path);
    } catch (const Unreadable&) {
      if (!may_be_searched(fd)) {
        throw;
      }
      entry = unknown_entry();
    }
    if (!entry) {
      continue;
    }
    if (entries_.size() == std::numeric_limits<std::uint32_t>::max()) {
      throw SpecError("cannot sync '" + root_ + "': there is too much in it");
    }
    entry->parent = number;
    entry->name = std::move(name);
    entries_.push_back(std::move(*entry));
  }
}

std::optional<TreeEntry> SourceTree::look_at(int directory, const std::string& name, const std::string& path) const {
  struct stat found{};
  if (::fstatat(directory, name.c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0) {
    if (has_vanished(errno)) {
      return std::nullopt;
    }
    throw_unreadable(errno, "fstatat", path);
  }
  auto entry = entry_of(found);
  if (!entry) {
    throw SpecError("cannot sync '" + path +
                    "': it is neither a file nor a directory nor a symbolic link. Leave it out with filter()");
  }
  if (entry->kind == TreeEntry::Kind::kLink) {
    auto link = read_link(directory, name, path);
    if (!link) {
      return std::nullopt;
    }
    entry->link = std::move(*link);
    make_relative_if_inside(*entry);
  }
  return entry;
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
