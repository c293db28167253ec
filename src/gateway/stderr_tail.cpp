#include "gateway/stderr_tail.hpp"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <ctime>
#include <new>
#include <string_view>
#include <utility>

#include "base/syscall.hpp"
#include "base/utf8.hpp"

namespace execnet::core {
namespace {

constexpr std::size_t kMostKept = std::size_t{16} * 1024;
constexpr std::size_t kMostShown = 4096;
constexpr std::size_t kShownBefore = 512;                          // what a library says before it aborts
constexpr std::string_view kCrashReport = "Fatal Python error: ";  // faulthandler's
// A pipe that polls as writable takes this much at once, so that writing it cannot block the loop.
constexpr std::size_t kAtOnce = 4096;
constexpr std::size_t kMostPending = std::size_t{64} * 1024;
constexpr std::chrono::milliseconds kRetry{20};

// While it lives, to write beyond the limit to the size of files (RLIMIT_FSIZE) is but an error. That limit is the
// program's own, and may be there for others: passing on what somebody says must not end the program.
class NoFileSizeSignal {
 public:
  NoFileSizeSignal() {
    sigemptyset(&signal_);
    sigaddset(&signal_, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &signal_, &before_);
  }
  ~NoFileSizeSignal() {
    if (sigismember(&before_, SIGXFSZ) == 0) {
      const timespec now{};
      sigtimedwait(&signal_, nullptr, &now);  // it is sent to the thread that writes
      pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    }
  }
  NoFileSizeSignal(const NoFileSizeSignal&) = delete;
  NoFileSizeSignal& operator=(const NoFileSizeSignal&) = delete;

 private:
  sigset_t signal_{};
  sigset_t before_{};
};

}  // namespace

StderrTail::StderrTail(base::Fd pipe, std::shared_ptr<loop::Loop> loop)
    : pipe_(std::move(pipe)), loop_(std::move(loop)) {
  base::check("fcntl", [&] { return ::fcntl(pipe_.get(), F_SETFL, O_NONBLOCK); });
}

StderrTail::~StderrTail() { loop_->unwatch(watch_); }

void StderrTail::start() {
  const std::lock_guard lock(mutex_);
  watch_ = loop_->watch(pipe_.get(), loop::kRead, [weak = weak_from_this()](std::uint32_t) {
    if (const auto self = weak.lock()) {
      self->on_ready();
    }
  });
}

void StderrTail::on_ready() {
  const std::lock_guard lock(mutex_);
  try {
    read_available();
    write_pending();
  } catch (const std::bad_alloc&) {  // it goes on without what was said until now
    pending_ = tail_ = std::string();
  }
}

void StderrTail::read_available() {
  std::array<char, 4096> chunk;
  // When it is passed on, more than that stays in the pipe: whoever fills it waits for our stderr.
  while (pipe_ && !(passing_on_ && pending_.size() >= kMostPending)) {
    const ssize_t count = ::read(pipe_.get(), chunk.data(), chunk.size());
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0 && errno == EAGAIN) {
      return;
    }
    if (count <= 0) {
      loop_->unwatch(watch_);
      pipe_.reset();
      return;
    }
    const std::string_view said(chunk.data(), static_cast<std::size_t>(count));
    pending_ += said;
    tail_ += said;
    if (!passing_on_ && pending_.size() > kMostPending) {
      pending_.erase(0, pending_.size() - kMostPending);
    }
    if (tail_.size() > kMostKept) {
      tail_.erase(0, tail_.size() - kMostKept);
    }
  }
}

void StderrTail::write_pending() {
  while (passing_on_ && !pending_.empty()) {
    pollfd out{STDERR_FILENO, POLLOUT, 0};
    if (::poll(&out, 1, 0) == 0) {
      // Nobody reads our stderr right now. The pipe is left alone meanwhile, or it would wake us.
      loop_->set_interest(watch_, 0);
      loop_->call_after(kRetry, [weak = weak_from_this()] {
        if (const auto self = weak.lock()) {
          self->loop_->set_interest(self->watch_, loop::kRead);
          self->on_ready();
        }
      });
      return;
    }
    const NoFileSizeSignal no_signal;
    const ssize_t count = ::write(STDERR_FILENO, pending_.data(), std::min(pending_.size(), kAtOnce));
    if (count < 0 && errno != EINTR && errno != EAGAIN) {
      pending_.clear();  // our stderr is closed, or full: there is nobody to tell
    } else if (count > 0) {
      pending_.erase(0, static_cast<std::size_t>(count));
    }
  }
}

void StderrTail::pass_on() {
  const std::lock_guard lock(mutex_);
  passing_on_ = true;
  write_pending();
}

std::string StderrTail::text() {
  const std::lock_guard lock(mutex_);
  read_available();
  write_pending();  // the loop may have no more reason to
  // What a crash report has in front is where it happened; a list of modules follows, which may be long.
  const std::size_t crash = tail_.rfind(kCrashReport);
  std::string text = crash != std::string::npos  ? tail_.substr(crash - std::min(crash, kShownBefore), kMostShown)
                     : tail_.size() > kMostShown ? tail_.substr(tail_.size() - kMostShown)
                                                 : tail_;
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) {
    text.pop_back();
  }
  return base::to_utf8(text);  // in whatever encoding it was, and cut anywhere
}

}  // namespace execnet::core
