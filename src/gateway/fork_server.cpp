#include "gateway/fork_server.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <functional>
#include <utility>
#include <vector>

#include "base/syscall.hpp"
#include "process/pidfd.hpp"
#include "process/tree.hpp"

namespace execnet::core {
namespace {

// Each has four descriptors with it, of which the kernel lets a user have only so many under way; and so
// few requests always fit into the socket.
constexpr std::size_t kMostUnanswered = 32;
// For the status of a worker that has ended. A fork server that is stopped says none.
constexpr std::chrono::milliseconds kCollectsWithin{500};
// For a fork server that has closed its socket.
constexpr std::chrono::milliseconds kEndsWithin{500};
constexpr std::chrono::milliseconds kRetry{20};
constexpr const char* kEndedWithIt = "its fork server has ended: ";

// Not one that there is none for, but no such call at all: an old kernel, a sandbox, valgrind 3.19, a filter.
bool refuses_pidfds(int error) { return error == ENOSYS || error == EPERM || error == EACCES; }

base::Fd open_null() {
  return base::Fd(base::check("open", [] { return ::open("/dev/null", O_RDWR | O_CLOEXEC); }, "/dev/null"));
}

}  // namespace

// --- ForkServer: its life ---

std::shared_ptr<ForkServer> ForkServer::start(const transport::Launch& launch, std::shared_ptr<loop::Loop> loop) {
  loop->start();  // as in GatewayEnd::start
  base::Fd null = open_null();
  transport::Link link = transport::open(launch);
  const base::Buffer sources = transport::preamble(launch);
  // Less than the socket takes at once. If the program has ended already, that is seen soon.
  static_cast<void>(::send(link.stream.get(), sources.view().data(), sources.view().size(), MSG_NOSIGNAL));
  auto self =
      std::make_shared<ForkServer>(std::move(link), std::move(null), std::move(loop), launch.leniency.keeps_detached);
  self->watch();
  return self;
}

ForkServer::ForkServer(transport::Link link, base::Fd null, std::shared_ptr<loop::Loop> loop, bool keeps_detached)
    : loop_(std::move(loop)),
      keeps_detached_(keeps_detached),
      process_(std::move(link.process)),
      stderr_(std::make_shared<StderrTail>(std::move(link.stderr_pipe), loop_)),
      oom_(process_->pid()),
      descent_(*process_),
      control_(std::move(link.stream)),
      null_(std::move(null)) {}

ForkServer::~ForkServer() { finish(); }

void ForkServer::watch() {
  stderr_->start();
  const std::lock_guard lock(mutex_);
  control_watch_ = watch(control_.get(), [](ForkServer& self) { self.read_answers(); });
  process_watch_ = watch(process_->end_fd(), [](ForkServer& self) { self.on_process_ended(); });
}

loop::Loop::Id ForkServer::watch(int fd, std::function<void(ForkServer&)> what) {
  return loop_->watch(fd, loop::kRead, [weak = weak_from_this(), what = std::move(what)](std::uint32_t) {
    if (const auto self = weak.lock()) {
      self->guarded(what);
    }
  });
}

void ForkServer::later(std::chrono::milliseconds delay, std::function<void(ForkServer&)> what) {
  loop_->call_after(delay, [weak = weak_from_this(), what = std::move(what)] {
    if (const auto self = weak.lock()) {
      self->guarded(what);
    }
  });
}

// What goes wrong on the loop ends the fork server, and all whom it was to fork for are told.
void ForkServer::guarded(const std::function<void(ForkServer&)>& what) {
  const std::lock_guard lock(mutex_);
  try {
    what(*this);
  } catch (const std::exception& error) {
    closed_ = true;
    loop_->unwatch(control_watch_);
    loop_->unwatch(process_watch_);
    process_->kill_tree();
    std::array<char, 256> how;  // there may be no memory
    std::snprintf(how.data(), how.size(), "its fork server cannot be talked to: %s", error.what());
    end_all_children(how.data());
  }
}

void ForkServer::end_all_children(std::string_view how) {
  for (const auto& [number, child] : children_) {
    loop_->unwatch(child.end_watch);
    child.far_end->set_ended(how);
  }
  children_.clear();
  requests_.clear();
}

bool ForkServer::usable() {
  pollfd entry{control_.get(), 0, 0};  // says if the other end is closed
  const std::lock_guard lock(mutex_);
  return !closed_ && ::poll(&entry, 1, 0) == 0;
}

bool ForkServer::is_over() {
  const std::lock_guard lock(mutex_);
  return how_ && children_.empty();
}

void ForkServer::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  ::shutdown(control_.get(), SHUT_RDWR);
}

void ForkServer::finish() {
  if (made_here_.in_forked_copy()) {
    return;  // as in give_up()
  }
  const std::lock_guard lock(mutex_);
  closed_ = true;
  loop_->unwatch(control_watch_);
  loop_->unwatch(process_watch_);
  end_all_children("its fork server was ended by this side");
}

std::string ForkServer::explain() {
  const std::string said = stderr_->text();
  const std::lock_guard lock(mutex_);
  return said +
         (ready_ ? "" : (said.empty() ? "" : "\n") + std::string("(its fork server has not yet imported all modules)"));
}

void ForkServer::give_up(std::uint32_t number) {
  if (made_here_.in_forked_copy()) {
    return;  // a thread that is not here may have held the mutex when the copy was made
  }
  const std::lock_guard lock(mutex_);
  const auto unsent = std::find_if(requests_.begin(), requests_.end(),
                                   [&](const Request& request) { return request.number == number; });
  if (unsent == requests_.end() || unsent->kind != ForkRequestKind::kFork) {
    return;
  }
  requests_.erase(unsent);
  end_child(number, "it was given up before it was forked");
  if (!ready_ && children_.empty()) {
    closed_ = true;
    process_->kill_tree();
  }
}

void ForkServer::kill(std::uint32_t number) {
  give_up(number);
  if (made_here_.in_forked_copy()) {
    return;
  }
  const std::lock_guard lock(mutex_);
  const auto found = children_.find(number);
  if (found != children_.end() && (found->second.watched_there || found->second.pidfd)) {
    requests_.push_back({ForkRequestKind::kKill, number, base::Fd(), base::Fd()});
    send_requests();
  }
}

// --- ForkServer: requests ---

std::shared_ptr<ForkedProcess> ForkServer::fork(base::Fd stream, base::Fd stdout_pipe) {
  auto [stderr_in, stderr_out] = base::make_pipe();
  const std::lock_guard lock(mutex_);
  const std::uint32_t number = ++last_number_;
  const auto far_end = std::make_shared<ForkedProcess>(weak_from_this(), number, std::move(stderr_in), loop_);
  children_[number].far_end = far_end;
  if (how_) {
    end_child(number, kEndedWithIt + *how_);
    return far_end;
  }
  requests_.push_back(
      {ForkRequestKind::kFork, number, std::move(stream), std::move(stderr_out), std::move(stdout_pipe)});
  send_requests();
  return far_end;
}

void ForkServer::send_requests() {
  while (ready_ && !requests_.empty() && unanswered_ < kMostUnanswered) {
    if (!send(requests_.front())) {
      if (errno == EAGAIN || errno == EINTR || errno == ETOOMANYREFS || errno == ENOBUFS || errno == ENOMEM) {
        later(kRetry, [](ForkServer& self) { self.send_requests(); });
      }
      return;  // or it has ended, which the loop sees
    }
    if (requests_.front().kind != ForkRequestKind::kWatch) {  // whose answer comes when it will
      ++unanswered_;
    }
    requests_.pop_front();
  }
}

// False with errno set when it could not be.
bool ForkServer::send(const Request& request) {
  ForkRequest header{request.kind, request.number};
  iovec bytes{&header, sizeof header};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  // What the worker of a fresh interpreter would be given now; see transport::start.
  const auto standard = [&](int fd) { return base::has_standard(fd) ? fd : null_.get(); };
  const std::array<int, kForkDescriptors> fds{request.stream.get(), request.stderr_pipe.get(),
                                              request.stdout_pipe ? request.stdout_pipe.get() : standard(STDOUT_FILENO),
                                              standard(STDERR_FILENO)};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof fds)> ancillary{};
  if (request.kind == ForkRequestKind::kFork) {
    message.msg_control = ancillary.data();
    message.msg_controllen = ancillary.size();
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof fds);
    std::memcpy(CMSG_DATA(rights), fds.data(), sizeof fds);
  }
  return ::sendmsg(control_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof header;
}

// --- ForkServer: answers ---

void ForkServer::read_answers() {
  std::array<char, 16384> bytes;
  const ssize_t size = ::recv(control_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (size < 0 && (errno == EINTR || errno == EAGAIN)) {
    return;
  }
  if (size <= 0) {
    on_control_end();
    return;
  }
  received_.append(bytes.data(), static_cast<std::size_t>(size));
  while (take_answer()) {
  }
  send_requests();
}

// The next of what was received, if all of it is there.
bool ForkServer::take_answer() {
  ForkAnswer header{};
  if (received_.size() < sizeof header) {
    return false;
  }
  std::memcpy(&header, received_.data(), sizeof header);
  if (header.length > kMostForkText) {
    refuse_all("it said what cannot be understood");
    return false;
  }
  if (received_.size() < sizeof header + header.length) {
    return false;
  }
  const std::string text = received_.substr(sizeof header, header.length);
  received_.erase(0, sizeof header + header.length);
  on_answer(header.kind, header.number, header.value, text);
  return true;
}

void ForkServer::on_answer(ForkAnswerKind kind, std::uint32_t number, std::int32_t value, const std::string& text) {
  if (kind == ForkAnswerKind::kReady && !ready_) {
    on_ready(text);
    return;
  }
  if (kind == ForkAnswerKind::kGone) {
    on_status(number, process::ExitStatus::of_waitpid(value));
    return;
  }
  if (unanswered_ > 0) {
    --unanswered_;
  }
  if (kind == ForkAnswerKind::kForked && value > 0) {
    on_forked(number, value);
  } else if (kind == ForkAnswerKind::kRefused) {
    end_child(number, "its fork server has not started it: " + text);
  } else if (kind == ForkAnswerKind::kEnded) {
    on_status(number, process::ExitStatus::of_waitpid(value));
  } else {
    refuse_all("it said what cannot be understood");
  }
}

void ForkServer::on_status(std::uint32_t number, const process::ExitStatus& status) {
  const auto found = children_.find(number);
  if (found == children_.end()) {
    return;
  }
  const Child& child = found->second;
  end_child(number, !child.process || child.far_end->killed_here()
                        ? status.describe()
                        : process::describe_end(status, oom_.of(child.process->pid())));
}

void ForkServer::on_ready(const std::string& its_pid_namespace) {
  if (its_pid_namespace != process::pid_namespace()) {
    refuse_all("it runs in another PID namespace, where its workers cannot be seen to: leave out preload");
    return;
  }
  oom_.follow(process_->pid());
  ready_ = true;
  stderr_->pass_on();
}

void ForkServer::on_forked(std::uint32_t number, pid_t pid) {
  const auto found = children_.find(number);
  if (found == children_.end() || found->second.process || found->second.pidfd || found->second.watched_there) {
    return;
  }
  // The number is a word of the fork server's, in which code of others has run.
  process::Descent::Found worker = descent_.find(pid);
  const int error = errno;
  pollfd entry{control_.get(), 0, 0};
  if (::poll(&entry, 1, 0) != 0) {
    return;  // its end is next
  }
  if (worker.kind == process::Descent::Kind::kNone && refuses_pidfds(error)) {
    // The number is of no use then, whoever it is of.
    found->second.watched_there = true;
    found->second.far_end->set_forked(nullptr);
    requests_.push_back({ForkRequestKind::kWatch, number, base::Fd(), base::Fd()});
    send_requests();
    return;
  }
  if (worker.kind == process::Descent::Kind::kNone) {
    requests_.push_back({ForkRequestKind::kKill, number, base::Fd(), base::Fd()});
    end_child(number, std::string("it cannot be watched: pidfd_open: ") + std::strerror(error));
    send_requests();
    return;
  }
  if (worker.kind == process::Descent::Kind::kOthers) {
    end_child(number, "its fork server has named process " + std::to_string(pid) + ", which it has not started");
    return;
  }
  Child& child = found->second;
  if (worker.kind == process::Descent::Kind::kOurs) {
    child.process = std::make_shared<process::Process>(pid, std::move(worker.pidfd), keeps_detached_);
  } else {
    child.pidfd = std::move(worker.pidfd);
  }
  child.far_end->set_forked(child.process);
  child.end_watch = watch(child.process ? child.process->end_fd() : child.pidfd.get(),
                          [number](ForkServer& self) { self.on_worker_ended(number); });
}

void ForkServer::on_worker_ended(std::uint32_t number) {
  const auto found = children_.find(number);
  if (found == children_.end()) {
    return;
  }
  loop_->unwatch(found->second.end_watch);
  if (how_) {
    if (found->second.process) {
      found->second.process->poll();  // it may be this process's to collect now
    }
    end_child(number, kEndedWithIt + *how_);
    return;
  }
  requests_.push_back({ForkRequestKind::kCollect, number, base::Fd(), base::Fd()});
  send_requests();
  later(kCollectsWithin, [number](ForkServer& self) {
    const auto late = self.children_.find(number);
    if (late != self.children_.end()) {
      late->second.far_end->set_ended("exit status unknown: its fork server does not answer");
    }
  });
}

void ForkServer::end_child(std::uint32_t number, std::string_view how, std::string_view said) {
  const auto found = children_.find(number);
  if (found != children_.end()) {
    found->second.far_end->set_ended(how, said);
    loop_->unwatch(found->second.end_watch);
    children_.erase(found);
  }
}

// --- ForkServer: its end ---

// Of no use for anybody; those that wait for it are told.
void ForkServer::refuse_all(const std::string& why) {
  closed_ = true;
  how_ = why;
  received_.clear();
  loop_->unwatch(control_watch_);
  process_->kill_tree();
}

void ForkServer::on_control_end() {
  loop_->unwatch(control_watch_);
  closed_ = true;
  later(kEndsWithin, [](ForkServer& self) { self.process_->kill_tree(); });
}

void ForkServer::on_process_ended() {
  const auto status = process_->poll();
  if (!status) {
    return;
  }
  loop_->unwatch(process_watch_);
  closed_ = true;
  if (!how_) {
    how_ = status->describe();
  }
  requests_.clear();
  const std::string said = stderr_->text();
  std::vector<process::Process*> running;
  std::vector<std::uint32_t> over;
  for (const auto& [number, child] : children_) {
    if (child.process && !process::pidfd_ended(child.process->end_fd())) {
      running.push_back(child.process.get());
    } else {
      over.push_back(number);
    }
  }
  for (const std::uint32_t number : over) {
    end_child(number, kEndedWithIt + *how_, said);
  }
  if (!running.empty()) {
    process::kill_trees(running);
  }
}

}  // namespace execnet::core
