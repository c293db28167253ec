#include "elsewhere.hpp"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <vector>

#include "base/syscall.hpp"

namespace execnet::testing {
namespace {

std::string result_of(const std::function<std::string()>& part) {
  try {
    return part();
  } catch (const std::exception& error) {
    return error.what();
  }
}

std::string skipped(const char* what) { return std::string("skipped: ") + what + ": " + std::strerror(errno); }

}  // namespace

std::string elsewhere(const std::function<std::string()>& part) {
  auto [in, out] = base::make_pipe();
  const pid_t child = base::check("fork", [] { return ::fork(); });
  if (child == 0) {
    const std::string text = result_of(part);
    std::_Exit(::write(out.get(), text.data(), text.size()) < 0 ? 1 : 0);
  }
  out.reset();
  std::string text;
  char bytes[4096];
  while (const auto size = base::check("read", [&, fd = in.get()] { return ::read(fd, bytes, sizeof bytes); })) {
    text.append(bytes, static_cast<std::size_t>(size));
  }
  base::check("waitpid", [&] { return ::waitpid(child, nullptr, 0); });
  return text;
}

std::string in_pid_namespace(const std::function<std::string()>& part) {
  return elsewhere([&] {
    if (::unshare(CLONE_NEWPID | CLONE_NEWNS) != 0) {
      return skipped("no PID namespace");
    }
    return elsewhere([&] {
      if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
          ::mount("proc", "/proc", "proc", 0, nullptr) != 0) {
        return skipped("no /proc for a PID namespace");
      }
      return part();
    });
  });
}

bool hide_proc() {
  return ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
         ::mount("none", "/proc", "tmpfs", 0, nullptr) == 0;
}

void refuse_system_call(long number, int error, unsigned mask) {
  constexpr auto kNumber = static_cast<unsigned>(offsetof(seccomp_data, nr));
  // The lower half of the argument: seccomp_data has the machine's byte order.
  constexpr auto kFlags =
      static_cast<unsigned>(offsetof(seccomp_data, args[1])) + (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? 4 : 0);
  const auto refusal = SECCOMP_RET_ERRNO | static_cast<unsigned>(error);
  const unsigned char to_the_end = mask != 0 ? 3 : 1;
  std::vector<sock_filter> filter{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNumber),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(number), 0, to_the_end),
  };
  if (mask != 0) {
    filter.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kFlags));
    filter.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, mask, 0, 1));
  }
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, refusal));
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  const sock_fprog program{.len = static_cast<unsigned short>(filter.size()), .filter = filter.data()};
  base::check("prctl", [] { return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); });
  base::check("prctl", [&] { return ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program); }, "seccomp");
}

}  // namespace execnet::testing
