// What a thread of the library runs in when the program's language keeps something for each thread: an interpreter's
// state, say, which takes longer to make than a short callback.
#pragma once

#include <functional>

namespace execnet::base {

// Calls `body`, on the thread whose life that is. None: it is called as it is.
using ThreadScope = void (*)(const std::function<void()>& body);

}  // namespace execnet::base
