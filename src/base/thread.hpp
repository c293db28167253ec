// Starting a thread, with an error that says what to do where the system has no more of them.
#pragma once

#include <functional>
#include <thread>

namespace execnet::base {

// Throws std::system_error. REQUIRES: `body` does not throw. Nobody could be told, and the process would end.
std::thread start_thread(std::function<void()> body);

}  // namespace execnet::base
