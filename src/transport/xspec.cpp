#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <execnet/error.hpp>
#include <execnet/xspec.hpp>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "transport/address.hpp"
#include "transport/shell.hpp"
#include "transport/transport.hpp"

namespace execnet {
namespace {

constexpr std::string_view kForm =
    "the form is type[=value]//key[=value]//..., for example \"popen\" or \"ssh=user@host//python=python3\"";
constexpr std::string_view kSeparator = "//";
constexpr std::string_view kEnvPrefix = "env:";
constexpr std::string_view kSecret = "***";

// Those that the library reads.
constexpr std::string_view kKeys[] = {"popen",
                                      "ssh",
                                      "vagrant_ssh",
                                      "socket",
                                      "via",
                                      "installvia",
                                      "id",
                                      "python",
                                      "chdir",
                                      "nice",
                                      "dont_write_bytecode",
                                      "ssh_config",
                                      "execmodel",
                                      "transport",
                                      "stdin",
                                      "stdout",
                                      "stderr",
                                      "window",
                                      "isolate",
                                      "preload",
                                      "limits",
                                      "grace",
                                      "detached",
                                      "connect_timeout",
                                      "profile"};

bool is_ours(std::string_view key) { return std::find(std::begin(kKeys), std::end(kKeys), key) != std::end(kKeys); }

std::string in_quotes(std::string_view text) { return '"' + std::string(text) + '"'; }

[[noreturn]] void refuse(std::string_view what, std::string_view text, std::string_view hint = kForm) {
  throw SpecError(std::string(what) + " in specification " + in_quotes(transport::without_secrets(text)) + "; " +
                  std::string(hint));
}

// nice(1) takes a sign, std::from_chars no plus.
bool is_integer(std::string_view text) {
  if (text.starts_with('+')) {
    text.remove_prefix(1);
    if (text.starts_with('-')) {
      return false;
    }
  }
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

// A number from 1 on, with K, M or G for 1024 of the smaller ones.
std::optional<std::uint64_t> size_of(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  const int shift = unit.empty() ? 0 : unit == "K" ? 10 : unit == "M" ? 20 : unit == "G" ? 30 : -1;
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (error != std::errc() || shift < 0 || number == 0 || number > kMost >> shift) {
    return std::nullopt;
  }
  return number << shift;
}

}  // namespace

std::string transport::without_secrets(std::string_view specification) {
  std::string result;
  bool after_variable = false;
  for (std::size_t begin = 0; begin <= specification.size();) {
    const std::size_t end = std::min(specification.find(kSeparator, begin), specification.size());
    const std::string_view part = specification.substr(begin, end - begin);
    const std::string_view key = part.substr(0, part.find('='));
    result += begin == 0 ? "" : kSeparator;
    if (part.starts_with(kEnvPrefix)) {
      after_variable = true;
      result.append(key).append(key.size() < part.size() ? "=" : "").append(key.size() < part.size() ? kSecret : "");
    } else {
      result += after_variable && !is_ours(key) ? kSecret : part;
    }
    begin = end + kSeparator.size();
  }
  return result;
}

XSpec::XSpec(std::string_view text) : text_(text) {
  if (text.empty()) {
    throw SpecError("empty specification; " + std::string(kForm));
  }
  if (text.find('\0') != std::string_view::npos) {
    throw SpecError("NUL byte in specification " +
                    in_quotes(transport::without_secrets(text.substr(0, text.find('\0')))) + "...; " +
                    std::string(kForm));
  }
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(kSeparator, begin), text.size());
    const std::string_view part = text.substr(begin, end - begin);
    begin = end + kSeparator.size();

    const std::size_t equals = std::min(part.find('='), part.size());
    const std::string key(part.substr(0, equals));
    std::optional<std::string> value;
    if (equals < part.size()) {
      value = part.substr(equals + 1);
    }
    // What follows a variable may be the rest of its value.
    const auto shown = [&](std::string_view what) { return in_quotes(env_.empty() || is_ours(what) ? what : kSecret); };
    if (part.empty()) {
      refuse("empty part", text);
    }
    if (key.empty()) {
      refuse("no key before " + shown(part), text);
    }
    if (key[0] == '_') {
      refuse("key " + shown(key) + " starts with an underscore", text, "such keys are reserved");
    }
    const bool duplicate =
        key.starts_with(kEnvPrefix) ? env_.contains(key.substr(kEnvPrefix.size())) : settings_.contains(key);
    if (duplicate) {
      refuse("duplicate key " + (key.starts_with(kEnvPrefix) ? in_quotes(key) : shown(key)), text,
             "give each key once");
    }
    if (key.starts_with(kEnvPrefix)) {
      if (key.size() == kEnvPrefix.size() || !value) {
        refuse("environment variable without " + std::string(value ? "name" : "value"), text,
               "the form is env:NAME=value");
      }
      env_.emplace(key.substr(kEnvPrefix.size()), *value);
    } else {
      settings_.emplace(key, value);
    }
  }
}

std::optional<std::string> XSpec::get(const std::string& key) const {
  const auto found = settings_.find(key);
  return found != settings_.end() ? found->second : std::nullopt;
}

void XSpec::set(const std::string& key, std::optional<std::string> value) {
  if (value) {
    settings_.insert_or_assign(key, std::move(value));
  } else {
    settings_.erase(key);
  }
}

void XSpec::set_bare(const std::string& key) { settings_.insert_or_assign(key, std::nullopt); }

std::string XSpec::type() const {
  static constexpr std::string_view kKinds[] = {"popen", "ssh", "vagrant_ssh", "socket"};
  constexpr std::string_view kKnown = "the types are popen, ssh=[user@]host, vagrant_ssh=machine and socket=host:port";
  std::vector<std::string> given;
  for (const std::string_view kind : kKinds) {
    if (has(std::string(kind))) {
      given.emplace_back(kind);
    }
  }
  if (given.empty()) {
    refuse("no gateway type", text_, kKnown);
  }
  if (given.size() > 1) {
    refuse("more than one gateway type, " + given[0] + " and " + given[1] + ',', text_, kKnown);
  }
  return given[0];
}

void XSpec::validate_choice(const std::string& key, std::initializer_list<std::string_view> choices) const {
  const auto value = get(key);
  if (!value || std::find(choices.begin(), choices.end(), *value) != choices.end()) {
    return;
  }
  std::string forms;
  for (const std::string_view choice : choices) {
    forms += (forms.empty() ? "" : " or ") + key + "=" + std::string(choice);
  }
  refuse("unknown " + key + "=" + *value, text_, "the form is " + forms);
}

void XSpec::validate_streams(const std::string& kind) const {
  validate_choice("transport", {"socket", "stdio"});
  validate_choice("stdin", {"inherit", "close", "devnull"});
  if (get("stdout") != transport::kCallback) {
    validate_choice("stdout", {"inherit", "close", "devnull", "null", "stderr"});
  }
  validate_choice("stderr", {"inherit", "close", "devnull"});
  const auto way = get("transport");
  if (way == "socket" && kind.ends_with("ssh")) {
    refuse("transport=socket with " + kind + "=", text_,
           "ssh passes on no more than standard input and output: leave out transport=");
  }
  if (way == "stdio" && (kind == "socket" || has("preload"))) {
    refuse("transport=stdio with " + std::string(has("preload") ? "preload" : kind), text_,
           "its worker is given a socket: leave out transport=");
  }
  const std::string elsewhere = kind != "popen" ? kind : has("via") ? "via=" : way == "stdio" ? "transport=stdio" : "";
  if (get("stdin") == "inherit" && (!elsewhere.empty() || has("preload"))) {
    refuse("stdin=inherit with " + (elsewhere.empty() ? "preload" : elsewhere), text_,
           "only a popen worker that this program starts itself can have its standard input");
  }
  if (get("stdout") == transport::kCallback && !elsewhere.empty()) {
    refuse("a function for stdout with " + elsewhere, text_,
           "the output of popen workers that are started here, with more than standard input and output, can be had");
  }
}

void XSpec::validate_socket() const {
  if (has("via")) {
    refuse("both socket and via=", text_, "sockets are connected from this machine: leave out via=");
  }
  if (has("installvia")) {
    if (get("socket")) {
      refuse("both an address of the socket and installvia=", text_,
             "the form is socket//installvia=id, or socket=host:port for a server that runs already");
    }
    if (get("installvia") == get("id")) {
      refuse("a gateway cannot install itself, as installvia=" + *get("installvia") + " says", text_,
             "name another gateway");
    }
    return;
  }
  try {
    transport::parse_address(get("socket").value_or(""));
  } catch (const SpecError& error) {
    refuse(error.what(), text_, "the form is socket=host:port, socket=[::1]:port or socket//installvia=id");
  }
}

std::optional<std::string> XSpec::execmodel() const {
  const auto execmodel = get("execmodel");
  const auto profile = get("profile");
  if (execmodel && profile && *execmodel != *profile) {
    refuse("both execmodel=" + *execmodel + " and profile=" + *profile, text_,
           "they are two names of the same key: give one of them");
  }
  return execmodel ? execmodel : profile;
}

std::optional<std::uint64_t> XSpec::window() const {
  const auto text = get("window");
  if (!text) {
    return std::nullopt;
  }
  const auto bytes = size_of(*text);
  if (!bytes) {
    refuse("window=" + *text + " is not a number of bytes", text_,
           "the form is window=8M, with K, M or G or none of them; without the key there is no window");
  }
  return bytes;
}

XSpec::Limits XSpec::limits() const {
  Limits limits;
  const std::string text = get("limits").value_or("");
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view part = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
    const std::string_view name = part.substr(0, part.find('='));
    auto* const limit = name == "bytes"      ? &limits.bytes
                        : name == "channels" ? &limits.channels
                        : name == "messages" ? &limits.messages
                                             : nullptr;
    const auto size = size_of(part.substr(std::min(name.size() + 1, part.size())));
    if (limit == nullptr || *limit || !size) {
      refuse("limits=" + text + " has " + in_quotes(part) + ", which is not a limit or is given twice,", text_,
             "the form is limits=bytes=1G,channels=10000,messages=1000, each of them or not");
    }
    *limit = size;
  }
  return limits;
}

std::optional<std::chrono::milliseconds> XSpec::seconds_of(const std::string& key) const {
  const auto text = get(key);
  if (!text) {
    return std::nullopt;
  }
  double seconds = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), seconds);
  constexpr double kMost = kMostSeconds.count();
  if (error != std::errc() || end != text->data() + text->size() || !(seconds >= 0 && seconds <= kMost)) {
    refuse(key + "=" + *text + " is not a number of seconds from 0 to " + std::to_string(kMostSeconds.count()), text_,
           "the form is " + key + "=5 or " + key + "=0.5");
  }
  return std::chrono::ceil<std::chrono::milliseconds>(std::chrono::duration<double>(seconds));
}

std::chrono::milliseconds XSpec::grace() const { return seconds_of("grace").value_or(kGrace); }

std::optional<std::chrono::milliseconds> XSpec::connect_timeout() const { return seconds_of("connect_timeout"); }

void XSpec::validate() const {
  const std::string kind = type();
  static constexpr std::string_view kNeedValue[] = {
      "ssh",     "vagrant_ssh", "id",     "python",     "chdir",     "nice",     "ssh_config",
      "profile", "execmodel",   "via",    "installvia", "transport", "stdin",    "stdout",
      "stderr",  "isolate",     "window", "limits",     "grace",     "detached", "connect_timeout"};
  for (const std::string_view name : kNeedValue) {
    const std::string key(name);
    if (has(key) && get(key).value_or("").empty()) {
      refuse("no value for " + key, text_, "the form is " + key + "=value");
    }
  }
  for (const auto& [key, value] : settings_) {
    // The text has none, but set() is free to.
    if (value && value->find('\0') != std::string::npos) {
      refuse("NUL byte in the value of " + key, text_);
    }
  }
  for (const auto& [name, value] : env_) {
    if (name.empty() || name.find_first_of(std::string_view("=\0", 2)) != std::string::npos ||
        value.find('\0') != std::string::npos) {
      refuse("a name or value that no environment variable can have, of " + in_quotes(name.c_str()) + ',', text_);
    }
  }
  if (const auto nice = get("nice"); nice && !is_integer(*nice)) {
    refuse("nice=" + *nice + " is not an integer", text_, "the form is nice=10");
  }
  static_cast<void>(execmodel());
  static_cast<void>(window());
  static_cast<void>(limits());
  static_cast<void>(grace());
  static_cast<void>(connect_timeout());
  validate_streams(kind);
  if (const auto detached = get("detached"); detached && *detached != "kill" && *detached != "keep") {
    refuse("unknown detached=" + *detached, text_, "the form is detached=keep or detached=kill");
  }
  if (keeps_detached() && has("isolate")) {
    refuse("detached=keep with isolate=", text_, "nothing outlives a PID namespace: leave out one of the two");
  }
  if (const auto isolate = get("isolate")) {
    if (*isolate != "pidns") {
      refuse("unknown isolate=" + *isolate, text_, "the form is isolate=pidns");
    }
    if (kind != "popen" || has("via")) {
      refuse("isolate= with a gateway that is not started here", text_, "it is for popen gateways of this machine");
    }
  }
  if (const auto python = get("python"); python && transport::shell_split(*python).empty()) {
    refuse("no program in python=" + *python, text_, "the form is python=/usr/bin/python3");
  }
  if (has("preload")) {
    const bool ssh_via = kind == "ssh" && has("via");
    if ((kind != "popen" && kind != "ssh") || has("isolate") || ssh_via) {
      refuse("preload with " + (ssh_via           ? "ssh= and via="
                                : kind != "popen" ? kind
                                                  : "isolate="),
             text_, "preload is for popen without isolate=, with or without via=, and for ssh= without via=");
    }
    transport::preloaded_modules(*this);
  }
  if (get("via") && get("via") == get("id")) {
    refuse("a gateway cannot be its own proxy, as via=" + *get("via") + " says", text_, "name another gateway");
  }
  if (kind == "socket") {
    validate_socket();
  } else if (has("installvia")) {
    refuse("installvia= without socket", text_, "the form is socket//installvia=id of another gateway");
  }
  if (kind == "ssh") {
    const std::vector<std::string> words = transport::shell_split(*get("ssh"));
    // A host that looks like an option would be taken for one, and the remote command for the host.
    const bool only_options =
        std::all_of(words.begin(), words.end(), [](const std::string& word) { return word.starts_with('-'); });
    if (only_options || words.back().empty()) {
      refuse("no host in ssh=" + *get("ssh"), text_, "the form is ssh=[user@]host, with options for ssh(1) before it");
    }
  }
}

}  // namespace execnet
