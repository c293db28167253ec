// What a worker's standard descriptors are to be, as HELLO says it, and how a process gets them so.
#pragma once

#include <cstdint>
#include <execnet/value.hpp>

namespace execnet::core {

enum class Standard : std::uint8_t {
  kInherit,   // it stays what it is
  kDevnull,   // the null device
  kClose,     // what reads from it, or writes to it, fails
  kStderr,    // of stdout: the same as stderr
  kCallback,  // of stdout: it stays what it is, which is a pipe of the coordinator's
};

struct StandardStreams {
  Standard in = Standard::kInherit;
  Standard out = Standard::kInherit;
  Standard err = Standard::kInherit;

  // From the coordinator's HELLO. Throws wire::ProtocolError for what is none of these, std::out_of_range.
  static StandardStreams from_hello(const Dict& hello);
  // Whether any is to be closed, which an interpreter has to know.
  [[nodiscard]] bool any_closed() const {
    return in == Standard::kClose || out == Standard::kClose || err == Standard::kClose;
  }
  // Changes descriptors 0 to 2 of this process. REQUIRES: descriptor 2 is the stderr of its code already. Throws
  // std::system_error.
  void apply() const;
};

}  // namespace execnet::core
