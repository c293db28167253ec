#include <execnet/group.hpp>

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <execnet/error.hpp>
#include <iterator>
#include <utility>

#include "api/keeping.hpp"
#include "gateway/membership.hpp"

namespace execnet {
namespace {

std::vector<Gateway> gateways(std::vector<std::shared_ptr<core::GatewayEnd>> ends) {
  return {std::make_move_iterator(ends.begin()), std::make_move_iterator(ends.end())};
}

core::WorkerOutput::Take taking(Output output, const std::string& id) {
  return [output = std::move(output), id](std::string_view text) {
    try {
      if (!text.empty()) {
        output(text);
      }
      return true;
    } catch (const std::exception& error) {
      ::dprintf(STDERR_FILENO, "execnet: the function for what gateway %s prints has failed: %s\n", id.c_str(),
                error.what());
      return false;
    }
  };
}

}  // namespace

Group::Group(std::initializer_list<XSpec> specs) : Group(std::vector<XSpec>(specs)) {}

Group::Group(const std::vector<XSpec>& specs) : membership_(std::make_shared<core::Membership>()) {
  makegateways(specs);
}

Group::~Group() { membership_->end(); }

std::size_t Group::size() const { return members().size(); }

bool Group::contains(std::string_view id) const {
  const auto now = members();
  return std::any_of(now.begin(), now.end(), [&](const auto& gateway) { return gateway.id() == id; });
}

Gateway Group::operator[](std::string_view id) const {
  for (const auto& gateway : members()) {
    if (gateway.id() == id) {
      return gateway;
    }
  }
  throw UnknownGateway("no gateway '" + std::string(id) + "' in " + repr());
}

Gateway Group::operator[](std::size_t index) const {
  const auto now = members();
  if (index >= now.size()) {
    throw UnknownGateway("no gateway " + std::to_string(index) + " in " + repr());
  }
  return now[index];
}

std::vector<Gateway> Group::members() const { return gateways(membership_->members()); }

XSpec Group::defaultspec() const { return membership_->defaultspec(); }

void Group::set_defaultspec(const XSpec& spec) { membership_->set_defaultspec(spec); }

Seconds Group::grace() const { return membership_->grace(); }

void Group::set_grace(Seconds grace) { membership_->set_grace(grace); }

void Group::allocate_id(XSpec& spec) { membership_->allocate_id(spec); }

Gateway Group::makegateway(const std::optional<XSpec>& spec, Output output) {
  return makegateways({spec.value_or(defaultspec())}, {std::move(output)}).front();
}

std::vector<Gateway> Group::makegateways(const std::vector<XSpec>& specs, std::vector<Output> outputs) {
  outputs.resize(specs.size());
  std::vector<bool> is_taken;
  is_taken.reserve(outputs.size());
  for (const Output& output : outputs) {
    is_taken.push_back(output != nullptr);
  }
  std::vector<Gateway> made;
  made.reserve(specs.size());  // while there are none whom the caller would not get
  for (auto& end : membership_->start(specs, {}, {}, is_taken)) {
    made.emplace_back(std::move(end));
  }
  try {
    for (std::size_t i = 0; i < made.size(); ++i) {
      if (outputs[i]) {
        static_cast<void>(made[i].end()->begin_output(taking(std::move(outputs[i]), made[i].id()), false));
      }
    }
  } catch (...) {  // for want of a thread
    for (const Gateway& gateway : made) {
      membership_->exit(*gateway.end());
    }
    throw;
  }
  return made;
}

MultiChannel Group::remote_exec(const Source& source, const Dict& arguments) {
  Partial partial;
  keeping(partial, [&] {
    for (const auto& gateway : members()) {
      partial.channels.push_back(gateway.remote_exec(source, arguments));
    }
  });
  return MultiChannel(std::move(partial.channels));
}

bool Group::terminate(std::optional<Seconds> timeout) {
  const auto membership = membership_;  // the group may be destroyed meanwhile
  return membership->terminate(timeout, {});
}

std::string Group::repr() const {
  std::string ids;
  for (const auto& gateway : members()) {
    ids += (ids.empty() ? "'" : ", '") + gateway.id() + "'";
  }
  return "<Group [" + ids + "]>";
}

Group& default_group() {
  static Group group;
  return group;
}

}  // namespace execnet
