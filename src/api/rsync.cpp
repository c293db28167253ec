#include <execnet/rsync.hpp>

#include <execnet/error.hpp>
#include <iostream>
#include <utility>
#include <vector>

#include "rsync/rsync_send.hpp"

namespace execnet {

class RSync::Targets final : public core::RSyncObserver {
 public:
  explicit Targets(RSync& sync) : sync_(sync) {}

  void add(Gateway gateway, const std::filesystem::path& destination, Options options) {
    targets_.push_back(
        {core::start_rsync_target(*gateway.end(), {}),
         gateway.id(),
         {.path = destination.string(), .delete_others = options.delete_others, .set_ids = options.set_ids}});
    gateways_.push_back(std::move(gateway));
    options_.push_back(std::move(options));
  }
  [[nodiscard]] bool empty() const { return targets_.empty(); }
  void send(const base::Wait& wait) { core::send_tree(sync_.source_.string(), targets_, *this, wait); }

  bool filter(const std::string& path) override { return sync_.filter(path); }
  void on_list(std::size_t target, std::uint64_t bytes) override { sync_.report_list(gateways_[target], bytes); }
  void on_send_file(std::size_t target, const std::string& relative) override {
    sync_.report_send_file(gateways_[target], relative);
  }
  void on_ack(std::size_t target, std::uint64_t bytes) override { sync_.report_ack(gateways_[target], bytes); }
  void on_finished(std::size_t target) override {
    if (options_[target].finished) {
      options_[target].finished();
    }
  }
  void on_unreadable(const std::string& path) override { sync_.report_unreadable(path); }

 private:
  RSync& sync_;
  std::vector<core::RSyncTarget> targets_;
  std::vector<Gateway> gateways_;
  std::vector<Options> options_;
};

RSync::RSync(std::filesystem::path source) : source_(std::move(source)), targets_(std::make_unique<Targets>(*this)) {}

RSync::~RSync() = default;

void RSync::add_target(Gateway gateway, const std::filesystem::path& destination) {
  add_target(std::move(gateway), destination, Options());
}

void RSync::add_target(Gateway gateway, const std::filesystem::path& destination, Options options) {
  targets_->add(std::move(gateway), destination, std::move(options));
}

void RSync::send(std::optional<Seconds> timeout) {
  const base::Wait wait{.deadline = base::deadline_after(timeout)};
  const auto targets = std::exchange(targets_, std::make_unique<Targets>(*this));
  if (targets->empty()) {
    throw SpecError("there is no target to send to: call add_target() before each send()");
  }
  targets->send(wait);
}

bool RSync::filter(const std::filesystem::path& path) {
  static_cast<void>(path);
  return true;
}

void RSync::report_send_file(const Gateway& gateway, const std::string& relative) {
  static_cast<void>(gateway);
  static_cast<void>(relative);
}

void RSync::report_list(const Gateway& gateway, std::uint64_t bytes) {
  static_cast<void>(gateway);
  static_cast<void>(bytes);
}

void RSync::report_ack(const Gateway& gateway, std::uint64_t bytes) {
  static_cast<void>(gateway);
  static_cast<void>(bytes);
}

void RSync::report_unreadable(const std::filesystem::path& path) {
  std::cerr << "RSync leaves out what it cannot read: " << path.string() << '\n';
}

}  // namespace execnet
