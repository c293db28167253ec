// The one place that states the version: CMakeLists.txt and pyproject.toml read it from here.
#pragma once

namespace execnet {

inline constexpr char kVersion[] = "3.0.0";

}  // namespace execnet
