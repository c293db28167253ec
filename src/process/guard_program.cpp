#include "process/guard_program.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/syscall.hpp"

namespace execnet::process {

base::Fd make_guard_file() {
  base::Fd file(base::check("memfd_create", [] { return ::memfd_create("execnet-guard", MFD_CLOEXEC); }));
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
