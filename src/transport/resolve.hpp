// From the name of a host to its addresses, in bounded time. Any thread.
#pragma once

#include <string>
#include <vector>

#include "base/wait.hpp"

namespace execnet::transport {

// The numeric addresses of a host, the best first, as this system's resolver is configured. One that is numeric already
// is returned as it is. Throws std::runtime_error: the name is not known, or the deadline has passed; what
// wait.interrupted throws passes through. Nothing is left running then.
//   resolve("localhost", {}) == {"::1", "127.0.0.1"}
//
// getaddrinfo(3) may take half a minute, can be neither interrupted nor given a deadline, and a thread that is in it
// cannot be joined. So it is getent(1), a program of the C library, that calls it, and that can be killed. Only where
// there is none the call is made here, and takes what it takes.
std::vector<std::string> resolve(const std::string& host, const base::Wait& wait);

}  // namespace execnet::transport
