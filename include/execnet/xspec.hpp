// A gateway specification: what to start, where, and how. A value; any thread may copy it.
//
//   type[=value]//key[=value]//...      "popen", "ssh=user@host//python=/opt/bin/python3//id=gpu"
//
// Keys that the library reads: popen, ssh (the host, with options for ssh(1) before it), vagrant_ssh (the
// machine), socket (host:port of a server, or no value with installvia), via (the id of the proxy, the gateway
// that is to start it), installvia (the id of the gateway on this machine that is to make the
// server), id, python, chdir, nice, env:NAME, dont_write_bytecode, ssh_config, execmodel, its other name profile,
// transport, stdin, stdout, stderr, window, isolate, connect_timeout (seconds), grace (seconds that running code has
// when the coordinator is gone), detached (keep: what a worker has started in a session of its own lives on), preload
// (modules, separated by commas, or no value: fork the worker from an interpreter that has imported them). Other keys
// are kept for the program.
#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include <execnet/export.hpp>

namespace execnet {

class EXECNET_EXPORT XSpec {
 public:
  // Throws SpecError for an empty text or part, a duplicate key, or a key that starts with '_'.
  XSpec(std::string_view text);  // NOLINT(google-explicit-constructor): a spec is written as text.
  XSpec(const char* text) : XSpec(std::string_view(text)) {}         // NOLINT
  XSpec(const std::string& text) : XSpec(std::string_view(text)) {}  // NOLINT

  // The exact text that the specification was made from. set() does not change it.
  [[nodiscard]] const std::string& text() const { return text_; }

  // Whether the key was given, with or without a value.
  [[nodiscard]] bool has(const std::string& key) const { return settings_.contains(key); }
  // The value of a key; none when it was not given or has no value.
  [[nodiscard]] std::optional<std::string> get(const std::string& key) const;
  // Sets or, with nullopt, removes a key.
  void set(const std::string& key, std::optional<std::string> value);
  // Sets a key without a value.
  void set_bare(const std::string& key);
  // NAME -> value of every env:NAME=value.
  [[nodiscard]] const std::map<std::string, std::string>& env() const { return env_; }
  void set_env(std::map<std::string, std::string> env) { env_ = std::move(env); }
  // All keys but env:NAME; a bare key maps to nullopt.
  [[nodiscard]] const std::map<std::string, std::optional<std::string>>& settings() const { return settings_; }

  // The kind of gateway: the key among `popen`, `ssh`, `vagrant_ssh`, `socket` that was given.
  // Throws SpecError when there is none or more than one, naming the known kinds.
  [[nodiscard]] std::string type() const;

  // The value of `execmodel`, or of `profile`, which is another name of it. None when neither was given. Throws
  // SpecError when they contradict each other.
  [[nodiscard]] std::optional<std::string> execmodel() const;

  // The value of `window`, in bytes: what may be on its way on a channel in each direction. A number from 1
  // on, with K, M or G for 1024 of the smaller ones: window=8M. None when the key was not given. Throws SpecError.
  [[nodiscard]] std::optional<std::uint64_t> window() const;

  // The value of `limits`: what the other side may have kept here at most, before the gateway ends with an error that
  // says so. limits=bytes=1G,channels=10000,messages=1000: bytes that nobody has received, with K, M or G; channels of
  // its making that nobody here has; messages of which only a part has come. None for what is not given: then half of
  // the machine's memory, a million and a hundred thousand hold (docs/security.md). Throws SpecError.
  struct Limits {
    std::optional<std::uint64_t> bytes, channels, messages;
  };
  [[nodiscard]] Limits limits() const;

  // The value of `grace`, in seconds, or kGrace: how long code that runs has after it was interrupted because the
  // coordinator is gone. Then the worker is killed, with what it has started. Throws SpecError.
  [[nodiscard]] std::chrono::milliseconds grace() const;
  // As long as the destructor of a group, or the end of a Python program, waits for running code.
  static constexpr std::chrono::milliseconds kGrace{1000};
  static constexpr std::chrono::seconds kMostSeconds{1'000'000};  // of a key

  // The value of `connect_timeout`, in seconds: how long the gateway may take from its launch until it serves; a person
  // at a prompt of ssh included. None if it was not given. Throws SpecError.
  [[nodiscard]] std::optional<std::chrono::milliseconds> connect_timeout() const;

  // Whether `detached` is keep: what a worker has started in a session of its own lives on when the worker ends.
  [[nodiscard]] bool keeps_detached() const { return get("detached") == "keep"; }

  // Whether the stream is to be on a socket of its own, descriptor 3 of the interpreter, and nowhere else: so says
  // transport=socket, and a worker that has this program's standard input can have no stream there.
  [[nodiscard]] bool needs_socket() const { return get("transport") == "socket" || get("stdin") == "inherit"; }

  // Checks everything that can be known before a process is started: the type, that nice is a number, window a size and
  // limits are some, that there is one execution model, that values which need one are given. Throws SpecError.
  void validate() const;

  friend bool operator==(const XSpec& a, const XSpec& b) { return a.text_ == b.text_; }

 private:
  void validate_socket() const;
  void validate_streams(const std::string& kind) const;
  void validate_choice(const std::string& key, std::initializer_list<std::string_view> choices) const;
  [[nodiscard]] std::optional<std::chrono::milliseconds> seconds_of(const std::string& key) const;

  std::string text_;
  std::map<std::string, std::optional<std::string>> settings_;
  std::map<std::string, std::string> env_;
};

}  // namespace execnet
