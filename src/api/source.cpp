#include <execnet/source.hpp>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <sstream>

#include "base/syscall.hpp"

namespace execnet {
namespace {

constexpr std::string_view kBlank = " \t";

// Calls `line` with each line of the text, without its end.
template <typename Line>
void for_each_line(std::string_view text, Line line) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    line(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

}  // namespace

Source file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  if (!in || !(text << in.rdbuf())) {
    base::throw_system_error(errno != 0 ? errno : EIO, "open", path.string());
  }
  Source source(text.str());
  source.filename = path.string();
  return source;
}

Source dedent(std::string_view text) {
  std::string_view common;
  bool first = true;
  for_each_line(text, [&](std::string_view line) {
    const std::size_t width = line.find_first_not_of(kBlank);
    if (width == std::string_view::npos) {
      return;
    }
    const std::string_view margin = line.substr(0, width);
    const auto same = std::mismatch(common.begin(), common.end(), margin.begin(), margin.end()).first;
    common = first ? margin : common.substr(0, static_cast<std::size_t>(same - common.begin()));
    first = false;
  });
  std::string dedented;
  for_each_line(text, [&](std::string_view line) {
    const bool blank = line.find_first_not_of(kBlank) == std::string_view::npos;
    dedented.append(blank ? std::string_view() : line.substr(common.size())).push_back('\n');
  });
  return dedented;
}

Source function(const Source& source, std::string_view name) {
  Source entered = source;
  entered.function = std::string(name);
  return entered;
}

}  // namespace execnet
