#include "connection/roles.hpp"

#include <exception>
#include <utility>

namespace execnet::core {

Roles::Roles(const Link& link, std::shared_ptr<loop::Loop> loop, std::mutex& mutex)
    : link_(link), loop_(std::move(loop)), mutex_(mutex) {}

Roles::~Roles() { loop_->unwatch(watch_); }

void Roles::start(std::weak_ptr<void> alive, Ready on_ready, Failed on_failed) {
  alive_ = std::move(alive);
  on_failed_ = std::move(on_failed);
  watch_ = loop_->watch(link_.fd(), 0, [this, weak = alive_, on_ready = std::move(on_ready)](std::uint32_t ready) {
    if (const auto held = weak.lock()) {
      run_in_loop([&](Lock& lock) { on_ready(lock, ready); });
    }
  });
}

void Roles::run_in_loop(const std::function<void(Lock&)>& body) {
  try {
    Lock lock(mutex_);
    body(lock);
  } catch (const std::exception& error) {  // for want of memory, say
    on_failed_(error.what());
  }
}

void Roles::update_interest() {
  // While the loop reads, its interest stays what it was.
  const std::uint32_t read = reader == Reader::kArmed  ? loop::kRead
                             : reader == Reader::kLoop ? interest_ & loop::kRead
                                                       : 0;
  const std::uint32_t write = writer == Writer::kLoop && !link_.writes_ring() ? loop::kWrite : 0;
  if ((read | write) != interest_) {
    interest_ = read | write;
    loop_->set_interest(watch_, interest_);
  }
}

void Roles::call_after(std::chrono::milliseconds delay, std::function<void(Lock&)> task) {
  loop_->call_after(delay, [this, weak = alive_, task = std::move(task)] {
    if (const auto held = weak.lock()) {
      run_in_loop(task);
    }
  });
}

}  // namespace execnet::core
