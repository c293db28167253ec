// An interpreter that has imported some modules and forks a worker whenever it is asked to: the coordinator's side
// of worker/fork_server.py; fork_protocol.hpp is what the two say to each other.
//
// A worker is the fork server's child: it alone can collect it, and does so when it is told to, which is when its
// pidfd says that it has ended. Until then the pid is nobody else's. Where the kernel or a filter refuses pidfds, the
// fork server is asked to see to the worker: it tells of the end, and kills. If the fork server ends, its workers are
// killed: a guard would do the same.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "base/fork.hpp"
#include "gateway/fork_protocol.hpp"
#include "gateway/forked_process.hpp"
#include "gateway/stderr_tail.hpp"
#include "loop/loop.hpp"
#include "process/descent.hpp"
#include "process/oom.hpp"
#include "process/process.hpp"
#include "transport/transport.hpp"

namespace execnet::core {

// Owner: its group's ForkServers. Any thread may call any method. Nothing here waits: what there is to do when
// something comes is done on the loop thread.
class ForkServer final : public std::enable_shared_from_this<ForkServer> {
 public:
  // Starts the interpreter, which then imports the modules. Throws HostNotFound.
  static std::shared_ptr<ForkServer> start(const transport::Launch& launch, std::shared_ptr<loop::Loop> loop);
  // For start().
  ForkServer(transport::Link link, base::Fd null, std::shared_ptr<loop::Loop> loop, bool keeps_detached);
  ~ForkServer();
  ForkServer(const ForkServer&) = delete;
  ForkServer& operator=(const ForkServer&) = delete;

  // Asks for a worker; `stream` is its end of the gateway's stream, and `stdout_pipe`, if any, its stdout.
  std::shared_ptr<ForkedProcess> fork(base::Fd stream, base::Fd stdout_pipe = {});
  // Nobody waits for the worker of that number any more. If it is not forked yet it need not be, and a fork server
  // that nobody waits for and that still imports is ended: it may do so for ever.
  void give_up(std::uint32_t number);
  // The worker of that number is to end. One that cannot be signalled from here is killed by the fork server.
  void kill(std::uint32_t number);
  // What keeps a worker from being forked: what the fork server has said, or that it is not ready.
  std::string explain();

  // Whether it can be asked for workers, as far as one knows.
  [[nodiscard]] bool usable();
  // Whether it has ended, and so have its workers.
  [[nodiscard]] bool is_over();
  [[nodiscard]] process::Process& process() const { return *process_; }
  // Has it end, once its workers have.
  void close();
  // It has ended, or it is not waited for any longer. So have its workers.
  void finish();

 private:
  struct Request {
    ForkRequestKind kind;
    std::uint32_t number;
    base::Fd stream;  // these three for a fork only
    base::Fd stderr_pipe;
    base::Fd stdout_pipe = {};  // none: the worker has our stdout
  };
  struct Child {
    std::shared_ptr<ForkedProcess> far_end;
    std::shared_ptr<process::Process> process;  // null: not forked yet, or
    base::Fd pidfd;                             // one that cannot be told from a stranger, and is not signalled, or
    bool watched_there = false;                 // one that its fork server sees to, since there are no pidfds
    loop::Loop::Id end_watch = 0;
  };

  void watch();
  // The following REQUIRE the mutex.
  void send_requests();
  bool send(const Request& request);
  void read_answers();
  bool take_answer();
  void on_answer(ForkAnswerKind kind, std::uint32_t number, std::int32_t value, const std::string& text);
  void on_ready(const std::string& pid_namespace);
  void on_status(std::uint32_t number, const process::ExitStatus& status);
  void on_forked(std::uint32_t number, pid_t pid);
  void on_worker_ended(std::uint32_t number);
  void on_control_end();
  void on_process_ended();
  void end_child(std::uint32_t number, std::string_view how, std::string_view said = "");
  void refuse_all(const std::string& why);
  void guarded(const std::function<void(ForkServer&)>& what);
  void end_all_children(std::string_view how);
  void later(std::chrono::milliseconds delay, std::function<void(ForkServer&)> what);
  loop::Loop::Id watch(int fd, std::function<void(ForkServer&)> what);

  const base::MadeHere made_here_;
  const std::shared_ptr<loop::Loop> loop_;
  const bool keeps_detached_;  // by its workers
  const std::shared_ptr<process::Process> process_;
  const std::shared_ptr<StderrTail> stderr_;
  process::OomWatch oom_;
  process::Descent descent_;  // guarded by the mutex
  const base::Fd control_;
  const base::Fd null_;  // for a standard descriptor that this program does not have

  std::mutex mutex_;
  loop::Loop::Id control_watch_ = 0;
  loop::Loop::Id process_watch_ = 0;
  bool ready_ = false;
  bool closed_ = false;             // it is asked for nothing more
  std::optional<std::string> how_;  // it ended
  std::uint32_t last_number_ = 0;
  std::deque<Request> requests_;  // not yet sent
  std::size_t unanswered_ = 0;    // sent
  std::map<std::uint32_t, Child> children_;
  std::string received_;
};

}  // namespace execnet::core
