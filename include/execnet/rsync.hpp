// Copies a directory, or a file, to any number of gateways at once; sends only what is different there.
//
//   execnet::RSync sync("build/report");
//   sync.add_target(group["web1"], "/srv/report");
//   sync.add_target(group["web2"], "/srv/report");
//   sync.send();
//
// Made and used by one thread. What is virtual is called on the thread that calls send(), which ends
// with what one of these throws.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include <execnet/export.hpp>
#include <execnet/gateway.hpp>

namespace execnet {

class EXECNET_EXPORT RSync {
 public:
  struct Options {
    bool delete_others = false;           // whether to remove there what is not in the source
    std::function<void()> finished = {};  // called when this target is done
  };

  // The directory whose content, or the file that, is copied.
  explicit RSync(std::filesystem::path source);
  virtual ~RSync();
  RSync(const RSync&) = delete;
  RSync& operator=(const RSync&) = delete;

  // Adds a target of the next send(). `destination`, relative to the working directory over there,
  // becomes like the source. Throws GatewayGone.
  void add_target(Gateway gateway, const std::filesystem::path& destination);
  void add_target(Gateway gateway, const std::filesystem::path& destination, Options options);

  // Copies, and forgets the targets. When one of them fails the others are finished first.
  // Throws SpecError when there are no targets, or for what cannot be copied; RemoteError, GatewayGone:
  // of the first target that failed; std::system_error: the source cannot be read.
  void send();

  [[nodiscard]] const std::filesystem::path& source() const { return source_; }

 protected:
  // Whether to copy this, and what is below it.
  virtual bool filter(const std::filesystem::path& path);
  // Before the content of a file is sent. `relative` is its path below the source, empty for a single file.
  virtual void report_send_file(const Gateway& gateway, const std::string& relative);
  // The size of all files that are different there; once for each target, first.
  virtual void report_list(const Gateway& gateway, std::uint64_t bytes);
  // The target has another file, of that size, as it should be.
  virtual void report_ack(const Gateway& gateway, std::uint64_t bytes);

 private:
  class Targets;

  const std::filesystem::path source_;
  std::unique_ptr<Targets> targets_;
};

}  // namespace execnet
