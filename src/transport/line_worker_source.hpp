// worker/line_worker.py as it is sent. The build generates the source file.
#pragma once

#include <string_view>

namespace execnet::transport {

// Any thread; lives for ever.
std::string_view line_worker_source();

}  // namespace execnet::transport
