#include "process/guard_program.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
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
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur < guard_program().size()) {
    return {};
  }
  base::Fd file(create_executable());
  if (!file && (errno == EMFILE || errno == ENFILE || errno == ENOMEM)) {
    base::throw_system_error(errno, "memfd_create", "execnet's guard, a file in memory");
  }
  for (std::string_view rest = guard_program(); file && !rest.empty();) {
    const ssize_t size = ::write(file.get(), rest.data(), rest.size());
    if (size > 0) {
      rest.remove_prefix(static_cast<std::size_t>(size));
    } else if (size == 0 || errno != EINTR) {
      return {};
    }
  }
  return file;
}

std::vector<std::string> guard_arguments(int socket, int coordinator, bool isolate, const Leniency& leniency,
                                         const std::vector<std::string>& candidates,
                                         const std::vector<std::string>& argv) {
  std::vector<std::string> words{"execnet-guard",
                                 std::to_string(socket),
                                 std::to_string(coordinator),
                                 isolate ? "pidns" : "none",
                                 std::to_string(leniency.grace.count()),
                                 leniency.keeps_detached ? "keep" : "kill",
                                 std::to_string(candidates.size())};
  words.insert(words.end(), candidates.begin(), candidates.end());
  words.insert(words.end(), argv.begin(), argv.end());
  return words;
}

}  // namespace execnet::process
