// worker.py: the modules of worker/execnet_worker as they are sent. The build generates it and the source file.
#pragma once

#include <string_view>

namespace execnet::transport {

// gzip. Any thread; lives for ever.
std::string_view worker_source_gz();

}  // namespace execnet::transport
