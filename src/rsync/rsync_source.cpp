#include "rsync/rsync_source.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

namespace execnet::core {
namespace {

struct stat look_at(int fd, const std::string& path) {
  struct stat found{};
  check_reading("fstat", [&] { return ::fstat(fd, &found); }, path);
  return found;
}

Stamp stamp_of(const struct stat& found) {
  return {.inode = found.st_ino,
          .size = static_cast<std::uint64_t>(found.st_size),
          .mtime = mtime_of(found),
          .ctime = static_cast<std::int64_t>(found.st_ctim.tv_sec) * 1'000'000'000 + found.st_ctim.tv_nsec};
}

}  // namespace

std::optional<SourceFile> SourceFile::open(const SourceTree& tree, std::uint32_t number) {
  base::Fd fd = tree.open(number);
  if (!fd) {
    return std::nullopt;
  }
  std::string path = tree.path(number);
  const struct stat found = look_at(fd.get(), path);
  if (!S_ISREG(found.st_mode)) {
    return std::nullopt;
  }
  SourceFile file(std::move(path), std::move(fd));
  file.mode_ = permissions_of(found);
  file.stamp_ = stamp_of(found);
  return file;
}

std::size_t SourceFile::read(std::uint64_t offset, std::span<char> space) const {
  std::size_t size = 0;
  while (size < space.size()) {
    const auto count = check_reading(
        "pread",
        [&] { return ::pread(fd_.get(), space.data() + size, space.size() - size, static_cast<off_t>(offset + size)); },
        path_);
    if (count == 0) {
      break;
    }
    size += static_cast<std::size_t>(count);
  }
  return size;
}

bool SourceFile::is_unchanged() const { return stamp_of(look_at(fd_.get(), path_)) == stamp_; }

const Digest& BlockHashes::digest(std::uint32_t number, const SourceFile& file, std::uint64_t size,
                                  std::uint64_t block) {
  Hashes& hashes = files_[number];
  if (hashes.stamp != file.stamp()) {
    hashes.stamp = file.stamp();
    hashes.blocks.assign((file.size() + size - 1) / size, std::nullopt);
  }
  std::optional<Digest>& digest = hashes.blocks.at(block);
  if (!digest) {
    Sha256 sha;
    space_.resize(kSmallestBlock);
    for (std::uint64_t done = 0; done < size;) {
      const std::size_t count = file.read(block * size + done, space_);
      sha.update({space_.data(), count});
      done += count;
      if (count < space_.size()) {
        break;
      }
    }
    digest = sha.digest();
  }
  return *digest;
}

}  // namespace execnet::core
