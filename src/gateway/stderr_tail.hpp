// Reads the stderr of a started process. It keeps the last lines for error messages and, once
// the gateway is up, passes everything on to this process's stderr.
//
// Owner: its GatewayEnd. Any thread may call any method.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "base/fd.hpp"
#include "loop/loop.hpp"

namespace execnet::core {

class StderrTail : public std::enable_shared_from_this<StderrTail> {
 public:
  StderrTail(base::Fd pipe, std::shared_ptr<loop::Loop> loop);
  ~StderrTail();
  StderrTail(const StderrTail&) = delete;
  StderrTail& operator=(const StderrTail&) = delete;

  void start();
  // Passes on what was said so far and everything from now on.
  void pass_on();
  // The last lines, including what is in the pipe now, or the last report of a crash; empty if
  // nothing was said. Always valid UTF-8.
  std::string text();

 private:
  void on_ready();
  void read_available();
  void write_pending();

  base::Fd pipe_;
  const std::shared_ptr<loop::Loop> loop_;
  loop::Loop::Id watch_ = 0;
  std::mutex mutex_;
  bool passing_on_ = false;
  std::string tail_;     // bounded
  std::string pending_;  // read and not yet passed on
};

}  // namespace execnet::core
