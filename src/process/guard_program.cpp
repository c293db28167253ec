#include "process/guard_program.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "base/syscall.hpp"

namespace execnet::process {
namespace {

constexpr unsigned kMfdExec = 0x10;  // MFD_EXEC; not every header we are built with has the name

// With vm.memfd_noexec=1 those who ask for it get a file that may be executed, with 2 nobody does. Linux before 6.3 has
// neither the rule nor the word for the request.
int create_executable() {
  const int file = ::memfd_create("execnet-guard", MFD_CLOEXEC | kMfdExec);
  return file < 0 && errno == EINVAL ? ::memfd_create("execnet-guard", MFD_CLOEXEC) : file;
}

}  // namespace

base::Fd make_guard_file() {
  base::Fd file(base::check("memfd_create", create_executable,
                            "execnet's guard, a file in memory that is executed: with vm.memfd_noexec=2 the kernel "
                            "refuses those; sysctl vm.memfd_noexec=1 allows this one"));
  for (std::string_view rest = guard_program(); !rest.empty();) {
    const auto size = base::check("write", [&] { return ::write(file.get(), rest.data(), rest.size()); }, "guard");
    rest.remove_prefix(static_cast<std::size_t>(size));
  }
  return file;
}

std::vector<std::string> guard_arguments(int socket, int coordinator, bool isolate,
                                         const std::vector<std::string>& candidates,
                                         const std::vector<std::string>& argv) {
  std::vector<std::string> words{"execnet-guard", std::to_string(socket), std::to_string(coordinator),
                                 isolate ? "pidns" : "none", std::to_string(candidates.size())};
  words.insert(words.end(), candidates.begin(), candidates.end());
  words.insert(words.end(), argv.begin(), argv.end());
  return words;
}

}  // namespace execnet::process
