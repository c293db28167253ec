// A group owns the membership and the lifetime of its gateways.
//
// Any thread may call any method.
#pragma once

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <execnet/export.hpp>
#include <execnet/gateway.hpp>
#include <execnet/multichannel.hpp>
#include <execnet/xspec.hpp>

namespace execnet {

namespace core {
class Membership;
}

class EXECNET_EXPORT Group {
 public:
  // Starts a gateway for each specification, all at the same time.
  //   execnet::Group group{"popen", "popen", "ssh=gpu1//id=gpu"};
  // Throws SpecError before anything is started; HostNotFound when everything that had started is gone again.
  Group(std::initializer_list<XSpec> specs = {});
  explicit Group(const std::vector<XSpec>& specs);
  // Terminates what is left, within about a second. Another thread may still be in terminate().
  ~Group();
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  [[nodiscard]] std::size_t size() const;
  [[nodiscard]] bool contains(std::string_view id) const;
  // Throws UnknownGateway.
  [[nodiscard]] Gateway operator[](std::string_view id) const;
  [[nodiscard]] Gateway operator[](const char* id) const { return (*this)[std::string_view(id)]; }
  [[nodiscard]] Gateway operator[](std::size_t index) const;
  [[nodiscard]] Gateway operator[](int index) const { return (*this)[static_cast<std::size_t>(index)]; }
  // The members as they are now, in the order they were made.
  [[nodiscard]] std::vector<Gateway> members() const;

  // The specification of makegateway() without one; "popen" unless changed.
  [[nodiscard]] XSpec defaultspec() const;
  void set_defaultspec(const XSpec& spec);

  // How long running code of members to come has after it was interrupted because this program is gone. It holds for
  // specifications that have no `grace`; one second unless changed. Throws SpecError for what is less than 0, or more
  // than a million.
  [[nodiscard]] Seconds grace() const;
  void set_grace(Seconds grace);

  // Gives the specification an id that is free in this group, and reserves it.
  // A specification that has an id is left as it is. Throws SpecError when that id is taken.
  void allocate_id(XSpec& spec);

  // Starts a gateway. Throws SpecError before anything is started, HostNotFound; ForkedResourceError in a process that
  // was forked from the one that has made the group.
  // With `output`, that takes what the worker prints: of a popen worker that this program starts itself. It goes before
  // stdout= of the specification.
  //   auto gateway = group.makegateway("popen", [](std::string_view text) { std::cout << text; });
  Gateway makegateway(const std::optional<XSpec>& spec = std::nullopt, Output output = nullptr);
  // Starts several at the same time. When one fails, none of them stays. `outputs` are those of the first ones.
  std::vector<Gateway> makegateways(const std::vector<XSpec>& specs, std::vector<Output> outputs = {});

  // Runs source on all members, in their order. Throws as Gateway::remote_exec, at the first member that it cannot run
  // on; the channels to those before it are in Error::partial().
  MultiChannel remote_exec(const Source& source, const Dict& arguments = {});

  // Tells all members to end and waits until their processes are gone. Those that do not end are killed shortly before
  // the timeout, with everything they have started. Without a timeout they have ten seconds. Returns at most
  // 0.2 s after the timeout, whatever the members do: true if all have ended by themselves, false if one had to be
  // ended.
  //   if (!group.terminate(5s)) std::cerr << "a worker had to be killed\n";
  bool terminate(std::optional<Seconds> timeout = std::nullopt);

  // "<Group ['gw0', 'gw1']>"
  [[nodiscard]] std::string repr() const;

  [[nodiscard]] core::Membership& membership() { return *membership_; }

 private:
  std::shared_ptr<core::Membership> membership_;  // also of who is in terminate()
};

// For programs that need only one group. It is terminated at the end of the program.
EXECNET_EXPORT Group& default_group();

}  // namespace execnet
