#include "soak.hpp"

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "base/syscall.hpp"

namespace execnet::testing {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::stoull(text);
}

// A line of /proc/self/status, in kilobytes.
std::size_t kilobytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word == key + ":") {
      std::size_t size = 0;
      status >> size;
      return size;
    }
  }
  throw std::runtime_error("no " + key + " in /proc/self/status");
}

}  // namespace

std::size_t soak_runs(std::size_t short_form) { return number_from("EXECNET_SOAK_RUNS", short_form); }

std::size_t soak_inputs(std::size_t short_form) { return number_from("EXECNET_SOAK_INPUTS", short_form); }

std::size_t soak_seconds(std::size_t short_form) { return number_from("EXECNET_SOAK_SECONDS", short_form); }

bool is_sanitized() { return kSanitized; }

std::uint64_t soak_seed() {
  const std::uint64_t seed = number_from("EXECNET_SOAK_SEED", 1);
  std::printf("seed %llu (EXECNET_SOAK_SEED=... for another)\n", static_cast<unsigned long long>(seed));
  return seed;
}

void soak_report(const std::string& what) {
  std::printf("soak: %s\n", what.c_str());
  std::fflush(stdout);
}

MemoryBound::MemoryBound(std::size_t more_megabytes) {
  // The peak so far comes from other tests. Forget it, where the system allows that.
  std::ofstream("/proc/self/clear_refs") << 5;
  resident_at_start_ = kilobytes("VmHWM");
  if (kSanitized) {
    return;
  }
  rlimit limit{};
  base::check("getrlimit", [&] { return ::getrlimit(RLIMIT_AS, &limit); });
  before_ = limit;
  limit.rlim_cur = kilobytes("VmSize") * 1024 + more_megabytes * 1024 * 1024;
  base::check("setrlimit", [&] { return ::setrlimit(RLIMIT_AS, &limit); });
}

MemoryBound::~MemoryBound() {
  if (before_) {
    ::setrlimit(RLIMIT_AS, &*before_);
  }
}

std::size_t MemoryBound::peak() const { return kilobytes("VmHWM") / 1024; }

std::size_t MemoryBound::growth() const {
  const std::size_t peak = kilobytes("VmHWM");
  return peak > resident_at_start_ ? (peak - resident_at_start_) / 1024 : 0;  // the kernel's sum is not exact
}

bool MemoryBound::holds(std::size_t megabytes) const { return kSanitized || growth() < megabytes; }

}  // namespace execnet::testing
