// RSync from the sending side: one tree to several targets at once.
//
// All of it runs on the thread that calls send_tree(): it never waits for one target while another has
// room, and what the channels bring is put into a mailbox that the thread sleeps on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/wait.hpp"
#include "connection/channel_handle.hpp"
#include "gateway/gateway_end.hpp"
#include "rsync/rsync_session.hpp"

namespace execnet::core {

struct RSyncTarget {
  std::shared_ptr<ChannelHandle> channel;  // of start_rsync_target()
  std::string gateway;                     // its id, for errors
  Destination destination;
};

// What is told of the targets, by their position. All on the thread of send_tree(), which ends with what
// one of these throws.
class RSyncObserver {
 public:
  RSyncObserver() = default;
  virtual ~RSyncObserver() = default;
  RSyncObserver(const RSyncObserver&) = delete;
  RSyncObserver& operator=(const RSyncObserver&) = delete;

  // Whether to copy this, and what is below it.
  virtual bool filter(const std::string& path) = 0;
  // The size of all files that are different there; once for each target, before what follows.
  virtual void on_list(std::size_t target, std::uint64_t bytes) = 0;
  // The content of that file ("a/b", empty for a single file) is sent.
  virtual void on_send_file(std::size_t target, const std::string& relative) = 0;
  // The target has a file of that size as it should be.
  virtual void on_ack(std::size_t target, std::uint64_t bytes) = 0;
  // The target is done, and well.
  virtual void on_finished(std::size_t target) = 0;
  // This cannot be read, and is left out: a file, or all that is in a directory. Once for all targets.
  virtual void on_unreadable(const std::string& path) = 0;
};

// Starts the receiving code on the other side. Throws GatewayGone.
std::shared_ptr<ChannelHandle> start_rsync_target(GatewayEnd& gateway, const base::Wait& wait);

// Copies the directory or the file. When one target fails the others are finished first.
// Throws TimeoutError, which names the targets that did not finish: they are told to stop; RemoteError, GatewayGone,
// DataFormatError for a target that is none: of the first one that failed; std::system_error: the source cannot be
// read; SpecError: it cannot be copied. Nothing half-written stays on the targets.
void send_tree(const std::string& source, const std::vector<RSyncTarget>& targets, RSyncObserver& observer,
               const base::Wait& wait);

}  // namespace execnet::core
