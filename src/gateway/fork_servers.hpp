// The fork servers of a group or a proxy: one for each combination of interpreter, environment, directory, file mode
// mask and list of modules.
//
// Owner: its Membership or WorkerEnd, which calls end() before it lets go. Any thread may call any method.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/wait.hpp"
#include "gateway/fork_server.hpp"
#include "loop/loop.hpp"
#include "transport/transport.hpp"

namespace execnet::core {

class ForkServers {
 public:
  explicit ForkServers(std::shared_ptr<loop::Loop> loop) : loop_(std::move(loop)) {}

  // Requests for workers that are made together. Environment, directory and mask of this process are looked up once for
  // all of them. One thread.
  class Batch {
   public:
    explicit Batch(ForkServers& servers) : servers_(servers) {}
    // Asks the fork server that fits, or a new one, for a worker. Waits for neither. Throws HostNotFound.
    // With `stdout_pipe`, the worker prints into that.
    std::shared_ptr<ForkedProcess> fork(const transport::Launch& launch, base::Fd stream, base::Fd stdout_pipe = {});

   private:
    ForkServers& servers_;
    std::vector<std::string> surroundings_;
  };

  // Ends all of them, and kills those that have not ended after a moment. REQUIRES: their workers are not wanted any
  // more.
  void end(const base::Wait& wait);

 private:
  using Key = std::vector<std::string>;

  std::shared_ptr<ForkServer> server_for(Key surroundings, const transport::Launch& launch);

  const std::shared_ptr<loop::Loop> loop_;
  std::mutex mutex_;
  std::map<Key, std::shared_ptr<ForkServer>> servers_;
  std::vector<std::shared_ptr<ForkServer>> ending_;  // replaced by others; their workers may still be there
};

}  // namespace execnet::core
