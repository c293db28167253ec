// What the long tests share: how often to run, and how much memory that may take.
//
// `make test` runs a short form of them; `make soak` sets the variables for the long one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include <sys/resource.h>

namespace execnet::testing {

// How often, for tests that race something (EXECNET_SOAK_RUNS).
std::size_t soak_runs(std::size_t short_form);
// How many inputs, for tests that are fed wrong ones (EXECNET_SOAK_INPUTS).
std::size_t soak_inputs(std::size_t short_form);
// How many seconds, for tests that measure (EXECNET_SOAK_SECONDS).
std::size_t soak_seconds(std::size_t short_form);
// Whether a sanitizer is built in, which takes memory and time as it likes.
bool is_sanitized();
// Where the random numbers start (EXECNET_SOAK_SEED); says so on stdout.
std::uint64_t soak_seed();
// A line with figures, which `make soak` collects: "soak: <what>".
void soak_report(const std::string& what);

// Bounds the address space of this process for as long as it lives, and tells its peak memory since then.
// Under a sanitizer it bounds nothing: those take memory as they like.
class MemoryBound {
 public:
  explicit MemoryBound(std::size_t more_megabytes);
  ~MemoryBound();
  MemoryBound(const MemoryBound&) = delete;
  MemoryBound& operator=(const MemoryBound&) = delete;

  // Megabytes: the most that was resident, and what that is above the beginning.
  [[nodiscard]] std::size_t peak() const;
  [[nodiscard]] std::size_t growth() const;
  // Whether it grew by less than that.
  [[nodiscard]] bool holds(std::size_t megabytes) const;

 private:
  std::size_t resident_at_start_ = 0;
  std::optional<rlimit> before_;
};

}  // namespace execnet::testing
