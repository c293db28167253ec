#include "processes.hpp"

#include <fstream>
#include <stdexcept>
#include <string>

namespace execnet::testing {

pid_t parent_of(pid_t pid) {
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("PPid:")) {
      return std::stoi(line.substr(5));
    }
  }
  throw std::runtime_error("no process " + std::to_string(pid));
}

bool sleeps(pid_t thread) {
  std::ifstream stat("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string text;
  std::getline(stat, text);
  const std::size_t name_end = text.rfind(')');
  return name_end != std::string::npos && text.substr(name_end).starts_with(") S");
}

pid_t starter_of(pid_t worker) { return parent_of(parent_of(parent_of(worker))); }

}  // namespace execnet::testing
