#include "base/thread.hpp"

#include <system_error>
#include <utility>

#include "base/syscall.hpp"

namespace execnet::base {

std::thread start_thread(std::function<void()> body) {
  try {
    return std::thread(std::move(body));
  } catch (const std::system_error& error) {
    throw_system_error(error.code().value(), "pthread_create");
  }
}

}  // namespace execnet::base
