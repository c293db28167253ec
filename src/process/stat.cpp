#include "process/stat.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

#include "base/fd.hpp"

namespace execnet::process {
namespace {

template <typename Number>
Number number_in(std::string_view text) {
  Number number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

}  // namespace

std::optional<Stat> read_stat(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  const base::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) {
    return std::nullopt;
  }
  char bytes[1024];
  const ssize_t size = ::read(file.get(), bytes, sizeof bytes);
  if (size <= 0) {
    return std::nullopt;
  }
  // "pid (name) state parent ...": the name may contain anything, so count from its last parenthesis.
  std::string_view text(bytes, static_cast<std::size_t>(size));
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string_view::npos || name_end + 2 >= text.size()) {
    return std::nullopt;
  }
  Stat entry;
  entry.is_guard = text.substr(0, name_end).ends_with("(execnet-guard");
  text.remove_prefix(name_end + 2);
  constexpr int kState = 3, kParent = 4, kSession = 6, kStart = 22;  // as proc(5) numbers them
  for (int field = kState; field <= kStart; ++field) {
    const std::size_t end = std::min(text.find(' '), text.size());
    if (field == kState && end > 0) {
      entry.state = text[0];
    } else if (field == kParent) {
      entry.parent = number_in<pid_t>(text.substr(0, end));
    } else if (field == kSession) {
      entry.session = number_in<pid_t>(text.substr(0, end));
    } else if (field == kStart) {
      entry.start = number_in<unsigned long long>(text.substr(0, end));
    }
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return entry;
}

}  // namespace execnet::process
