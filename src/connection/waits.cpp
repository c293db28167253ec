#include "connection/waits.hpp"

#include <algorithm>
#include <utility>

namespace execnet::core {

// What wakes a greenlet.
struct Waits::Greenlet::Bell {
  explicit Bell(const void* wanted) : topic(wanted) {}
  void ring() {
    if (!std::exchange(rung, true)) {
      waiter.wake();
    }
  }

  const void* const topic;
  loop::Waiter waiter;
  bool rung = false;
};

Waits::Greenlet::Greenlet(Waits& waits, Lock& lock, const void* topic)
    : waits_(waits), lock_(lock), bell_(std::make_shared<Bell>(topic)) {
  waits_.greenlets_.push_back(bell_);
}

Waits::Greenlet::~Greenlet() {
  if (!lock_.owns_lock()) {
    lock_.lock();
  }
  std::erase(waits_.greenlets_, bell_);
}

void Waits::Greenlet::sleep(const base::Wait& wait) {
  lock_.unlock();
  wait.hub->wait_readable(bell_->waiter.fd(), wait.deadline);
  lock_.lock();
  if (std::exchange(bell_->rung, false)) {
    bell_->waiter.clear();
  }
}

void Waits::wake(Thread& thread) {
  if (std::exchange(thread.asleep_, false)) {
    woken_ += thread.stands_back_ ? 0 : 1;
    thread.waiter_.wake();
  }
}

void Waits::touch(const void* topic) {
  for (Thread* thread : threads_) {
    if (thread->topic_ == topic) {
      wake(*thread);
    }
  }
  for (const auto& bell : greenlets_) {
    if (bell->topic == topic) {
      bell->ring();
    }
  }
}

void Waits::touch_all() {
  for (Thread* thread : threads_) {
    wake(*thread);
  }
  for (const auto& bell : greenlets_) {
    bell->ring();
  }
}

bool Waits::has_readers() const {
  return std::any_of(threads_.begin(), threads_.end(), [](const Thread* one) { return !one->stands_back(); });
}

void Waits::wake_a_reader() {
  const auto found = std::find_if(threads_.begin(), threads_.end(), [](const Thread* one) { return one->may_read(); });
  if (found != threads_.end()) {
    wake(**found);
  }
}

}  // namespace execnet::core
