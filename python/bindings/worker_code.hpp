// worker.py (transport/worker_source.hpp) as the Python of this extension has compiled it; the source file is generated
// by the build (cmake/compile_worker.py).
#pragma once

#include <string_view>

namespace execnet::python {

// The magic number of its bytecode, 4 bytes, and the marshalled code object as gzip. Any thread; lives for ever.
std::string_view worker_code();

}  // namespace execnet::python
