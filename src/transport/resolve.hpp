// From the name of a host to its addresses, in bounded time. Any thread.
#pragma once

#include <string>
#include <vector>

#include "base/wait.hpp"

namespace execnet::transport {

// The numeric addresses of a host, the best first, from this system's resolver. A numeric address
// is returned as it is. Throws std::runtime_error if the name is unknown or the deadline has passed, and passes on what
// wait.interrupted throws. Nothing is left running then.
//   resolve("localhost", {}) == {"::1", "127.0.0.1"}
//
// getaddrinfo(3) may take half a minute. It can be neither interrupted nor given a deadline, and a thread in it
// cannot be joined. So getent(1), a program of the C library, calls it; a program can be killed. Only where
// there is no getent is the call made here, however long it takes.
std::vector<std::string> resolve(const std::string& host, const base::Wait& wait);

}  // namespace execnet::transport
