#include "loop/waiter.hpp"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "base/syscall.hpp"
#include "base/thread.hpp"

namespace execnet::loop {
namespace {

void check_pthread(const char* call, int error) {
  if (error != 0) {
    base::throw_system_error(error, call);
  }
}

// Not thread_local: static objects wait, too, when they are destroyed, and that is after everything that is
// thread_local. What belongs to a key is deleted later; the first thread's never is.
pthread_key_t waiter_key() {
  static const pthread_key_t key = [] {
    pthread_key_t made{};
    check_pthread("pthread_key_create",
                  ::pthread_key_create(&made, [](void* waiter) { delete static_cast<Waiter*>(waiter); }));
    return made;
  }();
  return key;
}

}  // namespace

Waiter::Waiter() : eventfd_(base::check("eventfd", [] { return ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); })) {}

Waiter& Waiter::of_this_thread() {
  const pthread_key_t key = waiter_key();
  auto* waiter = static_cast<Waiter*>(::pthread_getspecific(key));
  if (waiter == nullptr || waiter->made_here_.in_forked_copy()) {
    auto made = std::make_unique<Waiter>();  // for a forked copy, too: the eventfd is shared with the parent
    check_pthread("pthread_setspecific", ::pthread_setspecific(key, made.get()));
    delete std::exchange(waiter, made.release());
  }
  return *waiter;
}

void Waiter::wake() const {
  const std::uint64_t one = 1;
  static_cast<void>(!::write(eventfd_.get(), &one, sizeof one));  // full means: a wake-up is pending
}

void Waiter::clear() const {
  std::uint64_t drained = 0;
  static_cast<void>(!::read(eventfd_.get(), &drained, sizeof drained));
}

std::thread start_waiting_thread(std::function<void()> body) {
  const pthread_key_t key = waiter_key();
  auto waiter = std::make_shared<std::unique_ptr<Waiter>>(std::make_unique<Waiter>());
  return base::start_thread([key, waiter = std::move(waiter), body = std::move(body)] {
    if (::pthread_setspecific(key, waiter->get()) == 0) {  // else there is no memory, and the first wait says so
      static_cast<void>(waiter->release());
    }
    body();
  });
}

}  // namespace execnet::loop
