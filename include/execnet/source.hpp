// What remote_exec runs: Python source, where it came from, and how to enter it. A value.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include <execnet/export.hpp>

namespace execnet {

struct EXECNET_EXPORT Source {
  Source(std::string_view python) : text(python) {}                        // NOLINT(google-explicit-constructor)
  Source(const char* python) : Source(std::string_view(python)) {}         // NOLINT(google-explicit-constructor)
  Source(const std::string& python) : Source(std::string_view(python)) {}  // NOLINT(google-explicit-constructor)

  // Python source, UTF-8. It runs with the globals `channel` and `__name__ == "__channelexec__"`.
  // Common leading white space of all lines is removed by the functions below, not here.
  std::string text;
  // The file that tracebacks name; none: "<remote exec>".
  std::optional<std::string> filename = std::nullopt;
  // The line of that file on which `text` starts, counted from 1.
  std::int64_t first_line = 1;
  // A function that `text` defines. It is called with the channel and the keyword arguments.
  std::optional<std::string> function = std::nullopt;
};

// The text of a Python file; its tracebacks name the file and its lines.
// Throws std::system_error when it cannot be read.
EXECNET_EXPORT Source file(const std::filesystem::path& path);

// Source written as an indented raw string in a C++ program: the common indentation is removed.
EXECNET_EXPORT Source dedent(std::string_view text);

// A function that `source` defines, to be called with the channel and the keyword arguments.
EXECNET_EXPORT Source function(const Source& source, std::string_view name);

}  // namespace execnet
