// The files that RSync reads: one that is open, and the digests of the blocks of all of them.
//
// Owner: the send() that runs, on its thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/fd.hpp"
#include "rsync/rsync_tree.hpp"
#include "rsync/sha256.hpp"

namespace execnet::core {

// Of the blocks that a file of that size is compared in: the same on both sides. At most kMostBlocks.
inline constexpr std::uint64_t kSmallestBlock = std::uint64_t{256} << 10;
inline constexpr std::uint64_t kMostBlocks = 4096;
[[nodiscard]] constexpr std::uint64_t block_size(std::uint64_t file_size) {
  std::uint64_t block = kSmallestBlock;
  while (file_size / kMostBlocks > block || file_size > block * kMostBlocks) {
    block *= 2;
  }
  return block;
}

// What changes when somebody writes into a file.
struct Stamp {
  std::uint64_t inode = 0;
  std::uint64_t size = 0;
  std::int64_t mtime = 0;
  std::int64_t ctime = 0;
  friend bool operator==(const Stamp&, const Stamp&) = default;
};

class SourceFile {
 public:
  // None if there is no such file any more. Throws Unreadable, std::system_error.
  static std::optional<SourceFile> open(const SourceTree& tree, std::uint32_t number);

  [[nodiscard]] std::uint64_t size() const { return stamp_.size; }
  [[nodiscard]] std::uint32_t mode() const { return mode_; }
  [[nodiscard]] std::int64_t mtime() const { return stamp_.mtime; }
  [[nodiscard]] const Stamp& stamp() const { return stamp_; }
  // Fills `space` from `offset` on; less at the end of the file. Throws Unreadable.
  [[nodiscard]] std::size_t read(std::uint64_t offset, std::span<char> space) const;
  // Whether nobody has written into it since it was opened. Throws Unreadable.
  [[nodiscard]] bool is_unchanged() const;

 private:
  SourceFile(std::string path, base::Fd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  base::Fd fd_;
  std::uint32_t mode_ = 0;
  Stamp stamp_;
};

// Each block is hashed at most once, for however many targets, as long as its file does not change.
class BlockHashes {
 public:
  // REQUIRES: block < ceil(file.size() / size). Throws Unreadable.
  const Digest& digest(std::uint32_t number, const SourceFile& file, std::uint64_t size, std::uint64_t block);

 private:
  struct Hashes {
    Stamp stamp;
    std::vector<std::optional<Digest>> blocks;
  };
  std::unordered_map<std::uint32_t, Hashes> files_;
  std::vector<char> space_;
};

}  // namespace execnet::core
