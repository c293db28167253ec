// write_seeds TARGET DIRECTORY: writes the seeds of a fuzz target as files, as libFuzzer wants them.
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>

#include "vectors.hpp"

int main(int argc, char** argv) try {
  if (argc != 3) {
    throw std::runtime_error("usage: write_seeds TARGET DIRECTORY");
  }
  std::size_t number = 0;
  for (const std::string& seed : execnet::testing::seeds_of(argv[1])) {
    const std::string path = std::string(argv[2]) + "/" + std::to_string(number++);
    if (!(std::ofstream(path, std::ios::binary) << seed).flush()) {
      throw std::runtime_error("cannot write " + path);
    }
  }
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "write_seeds: %s\n", error.what());
  return 1;
}
