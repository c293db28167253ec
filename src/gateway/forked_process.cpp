#include "gateway/forked_process.hpp"

#include <new>
#include <utility>

#include "gateway/fork_server.hpp"

namespace execnet::core {
namespace {

constexpr const char* kOutOfMemory = "out of memory";  // short enough to take none

}  // namespace

ForkedProcess::ForkedProcess(std::weak_ptr<ForkServer> server, std::uint32_t number, base::Fd stderr_pipe,
                             const std::shared_ptr<loop::Loop>& loop)
    : server_(std::move(server)),
      number_(number),
      loop_(loop),
      stderr_(std::make_shared<StderrTail>(std::move(stderr_pipe), loop)) {
  stderr_->start();
}

int ForkedProcess::end_fd() {
  const std::lock_guard lock(mutex_);
  if (!ended_event_) {
    ended_event_.emplace();
    if (how_) {
      ended_event_->signal();
    }
  }
  return ended_event_->fd();
}

// Not called right away: who ends it may hold a lock.
loop::Loop::Id ForkedProcess::watch_end(loop::Loop& loop, std::function<void()> handler) {
  const std::lock_guard lock(mutex_);
  if (how_) {
    loop.call_after({}, std::move(handler));
  } else {
    handler_ = std::move(handler);
  }
  return 0;
}

std::optional<std::string> ForkedProcess::ended() {
  const std::lock_guard lock(mutex_);
  return how_;
}

std::string ForkedProcess::said() {
  {
    const std::lock_guard lock(mutex_);
    if (forked_) {
      return stderr_->text();
    }
    if (how_) {
      return said_;
    }
  }
  const auto server = server_.lock();
  return server ? server->explain() : "";
}

void ForkedProcess::on_kill() {
  FarEnd::on_kill();
  if (process() == nullptr) {
    if (const auto server = server_.lock()) {
      server->kill(number_);
    }
  }
}

void ForkedProcess::let_go() {
  if (const auto server = server_.lock()) {
    server->give_up(number_);
  }
}

process::Process* ForkedProcess::process() {
  const std::lock_guard lock(mutex_);
  return process_.get();
}

void ForkedProcess::set_forked(std::shared_ptr<process::Process> process) {
  const std::lock_guard lock(mutex_);
  forked_ = true;
  process_ = std::move(process);
}

void ForkedProcess::set_ended(std::string_view how, std::string_view said) {
  const std::lock_guard lock(mutex_);
  if (how_) {
    return;
  }
  try {
    how_ = how;
    said_ = said;
  } catch (const std::bad_alloc&) {
    how_ = kOutOfMemory;
  }
  if (ended_event_) {
    ended_event_->signal();
  }
  if (const auto handler = std::exchange(handler_, nullptr)) {
    try {
      loop_->call_after({}, handler);
    } catch (const std::bad_alloc&) {
      // Its gateway sees the end of its stream all the same.
    }
  }
}

}  // namespace execnet::core
