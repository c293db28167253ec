// What a worker says about itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <execnet/value.hpp>

namespace execnet {

// What the worker said when it started.
struct RemoteInfo {
  std::string implementation;       // "native" or "pure"
  std::string executable;           // path of the interpreter
  std::vector<Value> version_info;  // as sys.version_info
  std::string platform;             // as sys.platform
  std::string cwd;
  std::int64_t pid = 0;
};

}  // namespace execnet
