// What a worker of this machine prints, for a function of the program: reads the pipe that is its standard output.
//
// The text goes the way of items to a callback, on the same thread (connection/dispatcher.hpp), in whole lines. What
// the function has not had yet is bounded: the rest stays in the pipe, and who prints more waits. The pipe is the
// kernel's, so that what was printed just before the worker died is not lost.
//
// Owner: its GatewayEnd. Any thread may call any method; the mutex of the connection must not be held.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "base/fd.hpp"
#include "connection/channel_state.hpp"
#include "connection/connection.hpp"
#include "connection/dispatcher.hpp"
#include "loop/loop.hpp"

namespace execnet::core {

class WorkerOutput final : public Callback, public std::enable_shared_from_this<WorkerOutput> {
 public:
  // Takes text, and is called with no mutex held, one call at a time. False: it has failed, and told who wants to know;
  // it is not called again. An empty text is the end: it may let go of what it has. Throws nothing.
  using Take = std::function<bool(std::string_view)>;

  // `pipe` is its read end.
  WorkerOutput(base::Fd pipe, std::shared_ptr<Connection> connection);
  ~WorkerOutput() override;

  // Has the text given to `take`, what was printed before, too. Once. As Dispatcher::start() in what it returns and
  // throws.
  [[nodiscard]] bool begin(Take take, bool in_greenlet);
  // The worker is gone: what it has printed is still given to the function, now or after begin(), and nothing more is
  // read. To be called before the connection is finished, with which the dispatcher ends. May be repeated.
  void finish();

  // Of Callback: by the dispatcher.
  std::optional<std::string> on_item(base::Buffer payload, StringConfig strings) override;
  void on_end() override;

 private:
  // The following REQUIRE the mutex.
  void take_in(std::size_t at_most);
  void read(std::size_t at_most);
  void hand_over_lines(Connection::Lock& lock);
  void hand_over(Connection::Lock& lock, std::size_t size);
  void end(Connection::Lock& lock);

  const std::shared_ptr<Connection> connection_;
  const std::shared_ptr<loop::Loop> loop_;
  const std::shared_ptr<ChannelState> way_;  // to the dispatcher; none of the connection's channels
  Take take_;                                // null: nobody wants it

  std::mutex mutex_;  // taken before the connection's
  base::Fd pipe_;
  loop::Loop::Id watch_ = 0;
  bool begun_ = false;
  bool finished_ = false;
  std::string pending_;         // not handed over: the begin of a line
  std::size_t on_the_way_ = 0;  // bytes that were handed over, and that the function has not had
};

}  // namespace execnet::core
