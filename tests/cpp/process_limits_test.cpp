// C++ programs whose limits (setrlimit(2)) are tight: what still works, and what the error says where nothing can.
// tests/python/test_process_limits.py is the same for Python.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <execnet/execnet.hpp>
#include <filesystem>
#include <functional>
#include <iterator>
#include <stdexcept>
#include <string>
#include <system_error>

#include "elsewhere.hpp"

namespace execnet {
namespace {

using namespace std::chrono_literals;

constexpr Seconds kPatience{60.0};

// What `part` returns in a process that has the limit, as its soft and its hard one.
std::string limited(decltype(RLIMIT_NOFILE) resource, rlim_t value, const std::function<std::string()>& part) {
  return testing::elsewhere([&] {
    const rlimit limit{value, value};
    if (::setrlimit(resource, &limit) != 0) {
      throw std::runtime_error("setrlimit");
    }
    return part();
  });
}

std::ptrdiff_t open_descriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
}

// Guards and rings are files in memory, which count.
TEST(ProcessLimits, FilesMayNotBeWritten) {
  for (const rlim_t size : {0, 4096, 100'000}) {
    const std::string said = limited(RLIMIT_FSIZE, size, [&] {
      constexpr std::size_t kLong = 3'000'000;
      Group group{"popen//id=proxy", "popen//preload", "popen//via=proxy", "popen//preload//via=proxy"};
      for (const Gateway& gateway : group.members()) {
        const Channel limit = gateway.remote_exec(
            "import resource; channel.send(resource.getrlimit("
            "resource.RLIMIT_FSIZE)[0])");
        if (limit.receive<std::uint64_t>(kPatience) != size) {
          return gateway.id() + " has another limit";
        }
        const Channel channel = gateway.remote_exec("channel.send(len(channel.receive()))");
        channel.send(Bytes(std::string(kLong, 'x')));
        if (channel.receive<std::size_t>(kPatience) != kLong) {
          return gateway.id() + " has not got it all";
        }
      }
      group.terminate(10s);
      return std::string("all is well");
    });
    EXPECT_EQ(said, "all is well") << size;
  }
}

// As many as fit; then the error names the limit and how many there are.
TEST(ProcessLimits, AGatewayTakesThreeDescriptorsAndWhatToRaiseIsSaid) {
  const std::string said = limited(RLIMIT_NOFILE, 1024, [] {
    Group group;
    std::string error = "no error";
    try {
      while (group.size() < 1000) {
        group.makegateway("popen//preload");
      }
    } catch (const std::system_error& thrown) {
      error = thrown.code() == std::errc::too_many_files_open ? thrown.what() : "another error";
    }
    const std::size_t count = group.size();
    if (count < 330) {
      return "only " + std::to_string(count) + " gateways: " + error;
    }
    if (error.find(std::to_string(count) + " gateways") == std::string::npos ||
        error.find("ulimit -n") == std::string::npos || error.find("1024") == std::string::npos) {
      return error;
    }
    for (const std::size_t which : {std::size_t{0}, count - 1}) {
      if (group[which].remote_exec("channel.send(41)").receive<int>(kPatience) != 41) {
        return std::string("not alive");
      }
    }
    group.terminate(20s);
    const auto open = open_descriptors();
    return open < 20 ? "all is well" : std::to_string(open) + " descriptors were not given back";
  });
  EXPECT_EQ(said, "all is well");
}

}  // namespace
}  // namespace execnet
