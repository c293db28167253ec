#include "connection/trace.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

#include "base/printable.hpp"
#include "base/syscall.hpp"
#include "connection/value_message.hpp"

namespace execnet::core {
namespace {

constexpr int kMostNames = 10'000;
constexpr std::size_t kMostText = 1000;

// Anybody may write to that directory: a file or a link that is there already is somebody else's. Or it is that of
// another group of this process: each has its own, since ids of gateways are unique in a group only.
base::Fd new_file() {
  const char* set = std::getenv("TMPDIR");
  const std::string directory = set != nullptr && *set != '\0' ? set : "/tmp";
  const std::string first = directory + "/execnet-debug-" + std::to_string(::getpid());
  for (int number = 1;; ++number) {
    const std::string path = number == 1 ? first : first + "-" + std::to_string(number);
    const int fd = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0) {
      return base::Fd(fd);
    }
    if (errno != EEXIST || number == kMostNames) {
      base::throw_system_error(errno, "open", path);
    }
  }
}

// A copy: what the program puts in its place later is not for us.
base::Fd own_stderr() {
  return base::Fd(base::check("fcntl", [] { return ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3); }, "stderr"));
}

// The text in one line that a terminal shows as it is.
std::string one_line(std::string_view text) {
  std::string line = base::printable(text.substr(0, kMostText));
  for (char& each : line) {
    if (each == '\n' || each == '\t') {
      each = ' ';
    }
  }
  return line;
}

// Never values of the environment: they may be secret.
std::string about_hello(const Dict& hello) {
  if (hello.contains("error")) {
    return "error: " + hello.at("error").as<std::string>();
  }
  if (hello.contains("implementation")) {
    return hello.at("implementation").as<std::string>() + " pid " + std::to_string(hello.at("pid").as<std::int64_t>()) +
           " " + hello.at("executable").as<std::string>();
  }
  return "id " + hello.at("id").as<std::string>() + " execmodel " + hello.at("execmodel").as<std::string>();
}

// Where the code is from. Nothing of the code itself, nor of its arguments.
std::string about_exec(const Tuple& exec) {
  const auto file = exec.at(1).as<std::optional<std::string>>();
  const auto function = exec.at(3).as<std::optional<std::string>>();
  return (file ? *file + ":" + std::to_string(exec.at(2).as<std::int64_t>()) : std::string("text")) +
         (function ? " " + *function : std::string());
}

// What is worth knowing of a message, before it was checked.
std::string about(wire::FrameType type, std::string_view payload) {
  try {
    switch (type) {
      case wire::FrameType::kHello: return about_hello(decode_value(payload).as<Dict>());
      case wire::FrameType::kExec: return about_exec(decode_value(payload).as<Tuple>());
      default: return "";
    }
  } catch (const std::exception&) {
    return "";
  }
}

}  // namespace

TraceTo trace_wanted() {
  const char* set = std::getenv("EXECNET_DEBUG");
  const std::string_view setting = set != nullptr ? set : "";
  return setting.empty() || setting == "0" ? TraceTo::kNowhere : setting == "2" ? TraceTo::kStderr : TraceTo::kFile;
}

std::shared_ptr<const TraceOutput> TraceOutput::open(TraceTo to) {
  const bool has_stderr = base::has_standard(STDERR_FILENO);
  try {
    if (to == TraceTo::kFile) {
      return std::make_shared<TraceOutput>(to, new_file());
    }
    if (to == TraceTo::kStderr && has_stderr) {
      return std::make_shared<TraceOutput>(to, own_stderr());
    }
  } catch (const std::system_error& error) {
    if (has_stderr) {
      std::fprintf(stderr, "execnet: EXECNET_DEBUG has no effect: %s\n", error.what());
    }
  }
  return nullptr;
}

void TraceOutput::write(std::string_view line) const {
  // If it fails there is nobody to be told.
  static_cast<void>(!::write(fd_.get(), line.data(), line.size()));
}

Trace::Trace(std::shared_ptr<const TraceOutput> output, std::string_view gateway_id)
    : output_(std::move(output)), who_(std::to_string(::getpid()) + " " + one_line(gateway_id)) {}

void Trace::received(const wire::FrameHeader& header, std::string_view payload) const noexcept {
  try {
    frame("<-", header, payload);
  } catch (const std::exception&) {  // no memory for it
  }
}

void Trace::sends(const wire::FrameHeader& header, std::string_view payload) const noexcept {
  try {
    frame("->", header, payload);
  } catch (const std::exception&) {
  }
}

void Trace::sends_raw(std::string_view bytes) const noexcept {
  try {
    std::string_view rest = bytes;
    if (rest.starts_with(wire::kMagic)) {
      rest.remove_prefix(wire::kMagic.size());
    }
    const bool may_be_frame = rest.size() >= wire::kHeaderSize && rest.front() > 0 &&
                              rest.front() <= static_cast<char>(wire::FrameType::kPassed);
    if (may_be_frame) {
      frame("->", wire::unpack(std::span(rest).first<wire::kHeaderSize>()), rest.substr(wire::kHeaderSize));
    } else {
      write("-> BYTES 0 " + std::to_string(bytes.size()) + " before the first frame");
    }
  } catch (const std::exception&) {
  }
}

void Trace::note(std::string_view text) const noexcept {
  try {
    write("-- " + one_line(text.substr(0, text.find('\n'))));
  } catch (const std::exception&) {
  }
}

void Trace::frame(const char* direction, const wire::FrameHeader& header, std::string_view payload) const {
  std::string line = std::string(direction) + " " + std::string(wire::name(header.type)) + " " +
                     std::to_string(header.channel) + " " + std::to_string(header.length);
  if ((header.flags & wire::kMore) != 0) {
    line += " more";
  } else if ((header.flags & wire::kAbort) != 0) {
    line += " abort";
  } else if (header.type == wire::FrameType::kCredit) {
    line += " credit " + std::to_string(header.credit);
  } else if (header.type == wire::FrameType::kDeflated) {
    line += " inflated " + std::to_string(header.credit);
  } else if (header.type == wire::FrameType::kProbe || header.type == wire::FrameType::kPassed) {
    line += " number " + std::to_string(header.credit);
  } else if (const std::string text = about(header.type, payload); !text.empty()) {
    line += " " + one_line(text);
  }
  write(line);
}

void Trace::write(std::string_view line) const {
  const auto now =
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  std::array<char, 32> time;
  std::snprintf(time.data(), time.size(), "%lld.%06lld ", static_cast<long long>(now / 1'000'000),
                static_cast<long long>(now % 1'000'000));
  output_->write(std::string(time.data()) + who_ + " " + std::string(line) + "\n");
}

}  // namespace execnet::core
