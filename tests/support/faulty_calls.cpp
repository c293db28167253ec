#include "faulty_calls.hpp"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <exception>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "base/syscall.hpp"

namespace execnet::testing {
namespace {

// For this thread and what it starts.
base::Fd filter_calls(int call) {
  constexpr auto kNumber = static_cast<unsigned>(offsetof(seccomp_data, nr));
  std::vector<sock_filter> filter{BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kNumber)};
  if (call >= 0) {
    filter.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<unsigned>(call), 1, 0));
    filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  }
  filter.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF));
  const sock_fprog program{.len = static_cast<unsigned short>(filter.size()), .filter = filter.data()};
  base::check("prctl", [] { return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); });
  return base::Fd(static_cast<int>(base::check("seccomp", [&] {
    return ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
  })));
}

}  // namespace

// The thread that judges is there first. The one that runs `part` may hold locks while its calls are judged, those of
// malloc or of a sanitizer, and to start a thread may need them.
FaultyCalls::FaultyCalls(int call, Judge judge, const std::function<void()>& part) : judge_(std::move(judge)) {
  auto [stopped, stop] = base::make_pipe();
  stop_ = std::move(stop);
  thread_ = std::thread([this, end = std::move(stopped)] {
    while (listener_ == kNotYet) {
      std::this_thread::yield();
    }
    if (listener_ >= 0) {
      run(end);
    }
  });
  std::exception_ptr failure;
  std::thread filtered([&] {
    try {
      listener_ = filter_calls(call).release();  // not told by a system call: nobody would judge that yet
      part();
    } catch (...) {
      failure = std::current_exception();
      int not_yet = kNotYet;
      listener_.compare_exchange_strong(not_yet, kNever);
    }
  });
  filtered.join();
  if (failure) {
    end();
    std::rethrow_exception(failure);
  }
}

void FaultyCalls::end() {
  stop_.reset();
  thread_.join();
  const base::Fd listener(listener_);
}

FaultyCalls::~FaultyCalls() { end(); }

void FaultyCalls::run(const base::Fd& stopped) {
  for (;;) {
    pollfd entries[] = {{listener_, POLLIN, 0}, {stopped.get(), POLLIN, 0}};
    base::check("poll", [&] { return ::poll(entries, 2, -1); });
    if (entries[1].revents != 0 || (entries[0].revents & POLLIN) == 0) {
      return;  // or nobody is left who is filtered
    }
    seccomp_notif asked{};
    if (::ioctl(listener_, SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0) {
      continue;  // who has asked was killed meanwhile
    }
    seccomp_notif_resp answer{};
    answer.id = asked.id;
    const int error = judge_(static_cast<pid_t>(asked.pid), asked.data.nr);
    answer.error = -error;
    answer.flags = error == 0 ? SECCOMP_USER_NOTIF_FLAG_CONTINUE : 0;
    static_cast<void>(::ioctl(listener_, SECCOMP_IOCTL_NOTIF_SEND, &answer));
  }
}

std::string FaultyCalls::unavailable() {
  try {
    const FaultyCalls none(SYS_getpgrp, [](pid_t, int) { return 0; }, [] { ::syscall(SYS_getpgrp); });
    return "";
  } catch (const std::system_error& error) {
    return error.what();
  }
}

std::string program_of(pid_t pid) {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/" + std::to_string(pid) + "/exe", error).string();
}

}  // namespace execnet::testing
