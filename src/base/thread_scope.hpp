// For languages that keep something for each thread, such as the state of a Python thread, which takes longer to make
// than a short callback takes to run. Threads of the library that run code of the program keep it for their whole life.
#pragma once

#include <functional>

namespace execnet::base {

// Calls `body`, which is all that the thread does. If there is none, `body` is called directly.
using ThreadScope = void (*)(const std::function<void()>& body);

}  // namespace execnet::base
