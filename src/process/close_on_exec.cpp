#include "process/close_on_exec.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace execnet::process {
namespace {

// The same on every architecture but alpha; not every header we are built with has the names.
constexpr long kCloseRange = 436;
constexpr unsigned kCloseRangeCloexec = 4;

// What getdents64 writes; the name follows.
struct EntryHeader {
  std::uint64_t inode;
  std::int64_t offset;
  std::uint16_t length;
  std::uint8_t type;
};
constexpr std::size_t kNameOffset = offsetof(EntryHeader, type) + 1;

// -1 for "." and "..".
int descriptor_of(const char* name) {
  int number = 0;
  for (; *name != '\0'; ++name) {
    if (*name < '0' || *name > '9') {
      return -1;
    }
    number = number * 10 + (*name - '0');
  }
  return number;
}

}  // namespace

bool close_listed_on_exec(int first) {
  // getdents64 and not readdir, which allocates: another thread may hold the allocator's lock.
  const int directory = ::open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) {
    return false;
  }
  alignas(EntryHeader) char entries[4096];
  long size = 0;
  while ((size = ::syscall(SYS_getdents64, directory, entries, sizeof entries)) > 0) {
    for (long at = 0; at < size;) {
      EntryHeader header;
      std::memcpy(&header, entries + at, kNameOffset);
      const int fd = descriptor_of(entries + at + kNameOffset);
      if (fd >= first) {
        ::fcntl(fd, F_SETFD, FD_CLOEXEC);
      }
      at += header.length;
    }
  }
  ::close(directory);
  return size == 0;
}

void close_all_on_exec(int first) {
  if (::syscall(kCloseRange, static_cast<unsigned>(first), UINT_MAX, kCloseRangeCloexec) == 0) {
    return;
  }
  if (close_listed_on_exec(first)) {
    return;
  }
  // Neither: a sandbox without /proc. Few programs have more descriptors than select(2) can take.
  constexpr int kReasonable = 1024;
  for (int fd = first; fd < kReasonable; ++fd) {
    ::fcntl(fd, F_SETFD, FD_CLOEXEC);
  }
}

}  // namespace execnet::process
