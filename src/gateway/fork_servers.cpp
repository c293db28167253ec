#include "gateway/fork_servers.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <utility>

#include "process/tree.hpp"

namespace execnet::core {
namespace {

// To end without having to be killed. They have nothing left to do.
constexpr std::chrono::milliseconds kMoment{100};
constexpr std::chrono::milliseconds kAtLeast{20};
constexpr std::chrono::milliseconds kAfterSigkill{2000};

// The file mode mask, which umask(2) could only be asked for by setting it, for all threads; and the signals that are
// ignored.
std::string inherited_masks() {
  std::ifstream status("/proc/self/status");
  std::string masks;
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Umask:") || line.starts_with("SigIgn:")) {
      masks += line;
    }
  }
  return masks;
}

// What a new process would have from this one.
std::vector<std::string> surroundings() {
  std::error_code error;
  std::vector<std::string> all{std::filesystem::current_path(error).string(), inherited_masks()};
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    all.emplace_back(*entry);
  }
  return all;
}

}  // namespace

std::shared_ptr<ForkedProcess> ForkServers::Batch::fork(const transport::Launch& launch, base::Fd stream,
                                                        base::Fd stdout_pipe) {
  if (surroundings_.empty()) {
    surroundings_ = surroundings();
  }
  return servers_.server_for(surroundings_, launch)->fork(std::move(stream), std::move(stdout_pipe));
}

std::shared_ptr<ForkServer> ForkServers::server_for(Key key, const transport::Launch& launch) {
  for (const auto& [name, value] : launch.env) {
    key.push_back("+" + name + "=" + value);
  }
  key.insert(key.end(), launch.argv.begin(), launch.argv.end());  // the list of modules is in the last, and the grace
  key.emplace_back(launch.leniency.keeps_detached ? "keep" : "kill");
  const std::lock_guard lock(mutex_);
  std::erase_if(ending_, [](const auto& server) { return server->is_over(); });
  std::shared_ptr<ForkServer>& server = servers_[std::move(key)];
  if (server && !server->usable()) {
    ending_.push_back(std::exchange(server, nullptr));
  }
  if (!server) {
    server = ForkServer::start(launch, loop_);
  }
  return server;
}

void ForkServers::end(const base::Wait& wait) {
  std::vector<std::shared_ptr<ForkServer>> servers;
  {
    const std::lock_guard lock(mutex_);
    servers = std::move(ending_);
    for (auto& [key, server] : servers_) {
      if (server) {
        servers.push_back(std::move(server));
      }
    }
    servers_.clear();
  }
  std::vector<process::Process*> running;
  for (const auto& server : servers) {
    server->close();
    running.push_back(&server->process());
  }
  const auto wait_for_ends = [&](std::chrono::milliseconds moment) {
    base::Wait most = wait.until(base::Clock::now() + moment);
    most.interrupted = nullptr;
    std::erase_if(running, [&](process::Process* process) { return process->wait(most).has_value(); });
  };
  // What is left of the time, but for a moment that there always is.
  const auto now = base::Clock::now();
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(wait.deadline.value_or(now + kMoment) - now);
  wait_for_ends(std::clamp(left, kAtLeast, kMoment));
  if (!running.empty()) {
    process::kill_trees(running);
    wait_for_ends(kAfterSigkill);
  }
  for (const auto& server : servers) {
    server->finish();
  }
}

}  // namespace execnet::core
