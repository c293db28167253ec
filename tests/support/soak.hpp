// What the long tests share: how often to run, and how much memory they may take.
//
// `make test` runs a short form of them; `make soak` sets the variables for the long one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include <sys/resource.h>

namespace execnet::testing {

// How often to run a test of a race (EXECNET_SOAK_RUNS).
std::size_t soak_runs(std::size_t short_form);
// How many wrong inputs to feed (EXECNET_SOAK_INPUTS).
std::size_t soak_inputs(std::size_t short_form);
// How many seconds to measure (EXECNET_SOAK_SECONDS).
std::size_t soak_seconds(std::size_t short_form);
// Whether a sanitizer is built in. Sanitizers take unpredictable memory and time.
bool is_sanitized();
// The seed of the random numbers (EXECNET_SOAK_SEED). Prints it.
std::uint64_t soak_seed();
// A line with figures, which `make soak` collects: "soak: <what>".
void soak_report(const std::string& what);

// Bounds the address space of this process while the object lives, and tells the peak memory since it was made.
// Under a sanitizer it bounds nothing.
class MemoryBound {
 public:
  explicit MemoryBound(std::size_t more_megabytes);
  ~MemoryBound();
  MemoryBound(const MemoryBound&) = delete;
  MemoryBound& operator=(const MemoryBound&) = delete;

  // In megabytes: the most that was resident, and how much more that is than at the beginning.
  [[nodiscard]] std::size_t peak() const;
  [[nodiscard]] std::size_t growth() const;
  // Whether memory grew by less than that.
  [[nodiscard]] bool holds(std::size_t megabytes) const;

 private:
  std::size_t resident_at_start_ = 0;
  std::optional<rlimit> before_;
};

}  // namespace execnet::testing
