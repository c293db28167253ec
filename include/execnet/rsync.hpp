// Copies a directory, or a file, to any number of gateways at once; sends only what is different there.
//
//   execnet::RSync sync("build/report");
//   sync.add_target(group["web1"], "/srv/report");
//   sync.add_target(group["web2"], "/srv/report");
//   sync.send();
//
// Made and used by one thread. The virtual functions are called on the thread that calls send(). What they throw,
// send() throws.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <execnet/channel.hpp>
#include <execnet/export.hpp>
#include <execnet/gateway.hpp>

namespace execnet {

class EXECNET_EXPORT RSync {
 public:
  struct Options {
    bool delete_others = false;           // whether to remove there what is not in the source
    std::function<void()> finished = {};  // called when this target is done
    bool set_ids = false;                 // whether the set-user-id and set-group-id bits of files go along
  };

  // The directory or file to copy. Of a directory, the content is copied.
  explicit RSync(std::filesystem::path source);
  virtual ~RSync();
  RSync(const RSync&) = delete;
  RSync& operator=(const RSync&) = delete;

  // Adds a target for the next send(). `destination` becomes like the source; it is relative to the worker's working
  // directory. Throws GatewayGone.
  void add_target(Gateway gateway, const std::filesystem::path& destination);
  void add_target(Gateway gateway, const std::filesystem::path& destination, Options options);

  // Copies, and forgets the targets. When one of them fails the others are finished first. Those that are not done
  // after `timeout` are told to stop, and named by TimeoutError. Without a timeout, one that stands still is waited
  // for. Throws SpecError when there are no targets, or for what cannot be copied; RemoteError, GatewayGone, or
  // DataFormatError for wrong answers: of the first target that failed; std::system_error: the source cannot be read.
  void send(std::optional<Seconds> timeout = std::nullopt);

  [[nodiscard]] const std::filesystem::path& source() const { return source_; }

 protected:
  // Whether to copy this path and everything below it.
  virtual bool filter(const std::filesystem::path& path);
  // Before the content of a file is sent. `relative` is its path below the source, empty for a single file.
  virtual void report_send_file(const Gateway& gateway, const std::string& relative);
  // Called first, once for each target: the size of all files that differ there.
  virtual void report_list(const Gateway& gateway, std::uint64_t bytes);
  // One more file, of that size, is done at the target.
  virtual void report_ack(const Gateway& gateway, std::uint64_t bytes);
  // This file, or what is in this directory, cannot be read: the targets keep what they have of it. Says so on stderr,
  // if it is not overridden.
  virtual void report_unreadable(const std::filesystem::path& path);

 private:
  class Targets;

  const std::filesystem::path source_;
  std::unique_ptr<Targets> targets_;
};

}  // namespace execnet
