// The native worker's end of a gateway: takes the coordinator's setup, hands out what is to be run,
// and sees to it that the process ends when it should.
//
// Owner: the process, for its whole life; it calls stop() before it lets go. It knows nothing of
// Python: the bindings run the code.
#pragma once

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/buffer.hpp"
#include "base/fd.hpp"
#include "base/wait.hpp"
#include "connection/channel_handle.hpp"
#include "connection/connection.hpp"
#include "gateway/opened_process.hpp"
#include "gateway/standard_streams.hpp"
#include "loop/loop.hpp"

namespace execnet::core {

// The coordinator's HELLO (docs/wire_format.md).
struct WorkerSetup {
  std::string id;
  std::string execmodel;
  std::optional<std::string> chdir;
  std::optional<int> nice;
  std::map<std::string, std::string> env;
  bool dont_write_bytecode = false;
  std::chrono::milliseconds grace{0};  // for code that was interrupted since the coordinator is gone
  StandardStreams streams;
  bool deflates = false;  // both ends may compress what they send
  TraceTo trace = TraceTo::kNowhere;

  // Whether tasks run in greenlets of the main thread.
  [[nodiscard]] bool in_greenlets() const { return execmodel == "gevent" || execmodel == "eventlet"; }
  // Whether it takes the interpreter to make the process what is wanted.
  [[nodiscard]] bool changes_interpreter() const {
    return chdir || nice || !env.empty() || dont_write_bytecode || streams.any_closed() ||
           (execmodel != "thread" && execmodel != "main_thread_only");
  }
};

// What a HELLO says back.
struct WorkerInfo {
  std::vector<Value> version_info;
  std::string executable;
  std::string platform;
  std::string cwd;
};

class WorkerEnd final : public ConnectionOwner, public std::enable_shared_from_this<WorkerEnd> {
 public:
  // Something to run: an EXEC payload, and the channel it talks over.
  struct Task {
    std::shared_ptr<ChannelHandle> channel;
    base::Buffer payload;
  };
  // Executes a task to its end; returns the text of what it raised, if anything. Must not throw.
  using Run = std::function<std::optional<std::string>(const Task&)>;

  // How long running code has to end before it is interrupted; then the process is ended from the loop thread, after
  // as long again, or after the grace if nobody is there any more and has not told it to end.
  struct Patience {
    std::chrono::milliseconds terminated{5000};  // told to end
    std::chrono::milliseconds lost = kLostMoment;
  };

  // `run` is called on the main thread and on others, several at a time. The caller is to wait at once, for nothing
  // is read before somebody does: a worker that only rests needs no loop thread.
  static std::shared_ptr<WorkerEnd> open(base::Fd stream, Run run, Patience patience);
  static std::shared_ptr<WorkerEnd> open(base::Fd stream, Run run) {
    return open(std::move(stream), std::move(run), {});
  }
  ~WorkerEnd() override = default;
  WorkerEnd(const WorkerEnd&) = delete;
  WorkerEnd& operator=(const WorkerEnd&) = delete;

  // Waits for the coordinator's HELLO; none if the coordinator is gone before.
  std::optional<WorkerSetup> wait_setup(const base::Wait& wait);
  void say_hello(const WorkerInfo& info);
  // Says why this worker cannot serve, and waits until that is out.
  void refuse(const std::string& why);

  // For a worker whose interpreter is not to be touched before it is wanted: rests until it is. Answers the
  // coordinator's HELLO with `info` if that takes no interpreter, after `taken` was called with what it says, with the
  // connection's mutex held. REQUIRES: called on the main thread, once, before anything else; the loop thread is not
  // needed for it.
  enum class Wanted : std::uint8_t {
    kForSetup,    // HELLO is not answered
    kForWork,     // there is something to run
    kForNothing,  // it is told to end, or the coordinator is gone
  };
  Wanted rest(const WorkerInfo& info, std::function<void(const WorkerSetup&)> taken);
  // Why the stream had to be ended is written there, and not to the stderr: to what the coordinator reads, so that it
  // can name the cause.
  void complain_to(int fd) { complaints_ = fd; }
  // After kForNothing: ends the process when it takes too long to end by itself.
  void end_in_time();

  // Runs tasks until the worker is told to end and none runs any more. REQUIRES: called on the
  // main thread, which takes a task whenever it is free; others get threads of their own.
  void serve(const base::Wait& wait);

  // The same for tasks in greenlets of the main thread: the next one, which is to be given to run() in a greenlet
  // of its own; none when the worker was told to end and none runs any more.
  std::optional<Task> next_task(const base::Wait& wait);
  void run(Task task);

  // Ends the loop thread, and with it the timers that would end the process, and the connection.
  // REQUIRES: no task runs, and none will; not called on the loop thread.
  void stop();

  [[nodiscard]] const std::string& id() const { return setup_->id; }
  [[nodiscard]] const std::string& execmodel() const { return setup_->execmodel; }
  [[nodiscard]] const std::shared_ptr<Connection>& connection() const { return connection_; }

  void on_hello(Lock& lock, base::Buffer payload) override;
  void on_exec(Lock& lock, const std::shared_ptr<ChannelState>& channel, base::Buffer payload) override;
  void on_open(Lock& lock, const std::shared_ptr<ChannelState>& channel, base::Buffer payload) override;
  void on_status_request(Lock& lock, std::uint32_t channel) override;
  void on_terminate(Lock& lock) override;
  void on_stream_end(const std::string& error) override;

 private:
  // A thread that runs tasks. The first is the main thread.
  struct Runner {
    std::optional<Task> task;  // given to it and not yet begun
    bool idle = false;         // free to be given one
    std::thread thread;        // not for the main thread
  };

  WorkerEnd(base::Fd stream, Run run, Patience patience);
  // Throws ProtocolError unless the coordinator has said what the worker needs to know.
  void check_has_hello(const char* what) const;
  void run_tasks(Runner& runner, const base::Wait& wait);
  void run_task(Runner& runner, Task task);
  void make_free(Runner& runner);
  // Throws if there is no thread to be had.
  Runner& add_runner();
  void join_dispatcher(Lock& lock, const base::Wait& wait);
  void queue_for_main(Task task);
  void say_hello(Lock& lock, const WorkerInfo& info);
  // From now on.
  struct Times {
    std::chrono::milliseconds interrupted{0};
    std::chrono::milliseconds ended{0};
  };
  [[nodiscard]] Times lost_times() const;
  void end_within(Times times);
  void end_by_force_after(Times times);

  const Run run_;
  std::atomic<int> complaints_{STDERR_FILENO};
  const Patience patience_;
  const std::shared_ptr<loop::Loop> loop_;
  const std::shared_ptr<Connection> connection_;
  const pthread_t main_thread_;
  sigset_t signal_mask_{};  // the main thread's; constant

  // Guarded by the connection's mutex.
  std::optional<WorkerSetup> setup_;  // constant once wait_setup has returned
  bool ending_ = false;
  bool lost_ = false;  // the coordinator is gone and has not told it to end
  struct Rest {
    const WorkerInfo& info;
    std::function<void(const WorkerSetup&)> taken;
    bool answered = false;  // HELLO
  };
  Rest* rest_ = nullptr;  // while the main thread is in rest()
  Times ending_times_;    // with which it is ending
  std::list<Runner> runners_;
  std::list<std::shared_ptr<OpenedProcess>> opened_;  // of gateways that this one is the proxy of
  std::shared_ptr<ForkServers> forks_;                // of such gateways, once there was one
  std::list<Task> queued_;        // main_thread_only: waiting for the main thread to be free; else for a greenlet
  std::size_t in_greenlets_ = 0;  // tasks that next_task() gave and that are not over
};

}  // namespace execnet::core
