// The words of every .py file of Python's standard library, counted by a group of gateways.
//
//   word_count [directory]      another directory than the standard library
//
// Each gateway has a thread here, which gives it the next files as soon as it has counted the last
// ones. So the work goes to whichever gateway is free. Files are read where they are counted. At the
// end the total is checked against a count made in this process.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <exception>
#include <execnet/execnet.hpp>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kFilesAtOnce = 16;

// Runs in a gateway: receives lists of paths, and answers with the bytes and the words in these files.
constexpr std::string_view kCounter = R"(
  for paths in channel:
      size = words = 0
      for path in paths:
          with open(path, "rb") as file:
              data = file.read()
          size += len(data)
          words += len(data.split())
      channel.send((size, words))
)";

struct Tally {
  std::uint64_t files = 0;
  std::uint64_t bytes = 0;
  std::uint64_t words = 0;
  friend bool operator==(const Tally&, const Tally&) = default;
  Tally& operator+=(const Tally& other) {
    files += other.files;
    bytes += other.bytes;
    words += other.words;
    return *this;
  }
};

// The files that are still to be counted. Any thread.
class Work {
 public:
  explicit Work(std::vector<std::string> files) : files_(std::move(files)) {}
  // The next few files; none when all have been handed out.
  std::span<const std::string> take() {
    const std::lock_guard lock(mutex_);
    const std::size_t count = std::min(kFilesAtOnce, files_.size() - taken_);
    const auto part = std::span(files_).subspan(taken_, count);
    taken_ += count;
    return part;
  }
  [[nodiscard]] const std::vector<std::string>& files() const { return files_; }

 private:
  const std::vector<std::string> files_;
  std::mutex mutex_;
  std::size_t taken_ = 0;
};

// One gateway's share: what it counted, how long that took, and what went wrong.
struct Share {
  Tally tally;
  std::chrono::duration<double> time{};
  std::exception_ptr error;
};

bool is_installed_package(const fs::path& path) {
  return path.filename() == "site-packages" || path.filename() == "dist-packages";
}

std::vector<std::string> python_files(const fs::path& directory) {
  std::vector<std::string> files;
  for (auto entry = fs::recursive_directory_iterator(directory); entry != fs::recursive_directory_iterator(); ++entry) {
    if (entry->is_directory() && is_installed_package(entry->path())) {
      entry.disable_recursion_pending();
    } else if (entry->is_regular_file() && entry->path().extension() == ".py") {
      files.push_back(entry->path().string());
    }
  }
  return files;
}

void count_by(const execnet::Gateway& gateway, Work& work, Share& share) {
  try {
    const auto start = std::chrono::steady_clock::now();
    const auto channel = gateway.remote_exec(execnet::dedent(kCounter));
    for (auto files = work.take(); !files.empty(); files = work.take()) {
      channel.send(files);
      const auto [bytes, words] = channel.receive<std::pair<std::uint64_t, std::uint64_t>>();
      share.tally += {files.size(), bytes, words};
    }
    share.time = std::chrono::steady_clock::now() - start;
  } catch (...) {
    share.error = std::current_exception();
  }
}

std::vector<Share> count_by_all(const execnet::Group& group, Work& work) {
  const auto gateways = group.members();
  std::vector<Share> shares(gateways.size());
  {
    std::vector<std::jthread> threads;
    threads.reserve(gateways.size());
    for (std::size_t i = 0; i < gateways.size(); ++i) {
      threads.emplace_back(count_by, gateways[i], std::ref(work), std::ref(shares[i]));
    }
  }
  for (const Share& share : shares) {
    if (share.error) {
      std::rethrow_exception(share.error);
    }
  }
  return shares;
}

// The words as Python's bytes.split() sees them.
std::uint64_t words_in(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\r\v\f";
  std::uint64_t words = 0;
  bool within = false;
  for (const char c : text) {
    const bool space = kSpace.find(c) != std::string_view::npos;
    words += !space && !within ? 1 : 0;
    within = !space;
  }
  return words;
}

Tally count_here(const std::vector<std::string>& files) {
  Tally tally;
  for (const std::string& path : files) {
    std::ifstream in(path, std::ios::binary);
    const std::string text(std::istreambuf_iterator<char>(in), {});
    if (!in) {
      throw std::runtime_error("cannot read " + path);
    }
    tally += {1, text.size(), words_in(text)};
  }
  return tally;
}

void print_row(std::string_view id, const std::string& pid, const Tally& tally, std::chrono::duration<double> time) {
  std::cout << std::left << std::setw(8) << id << std::right << std::setw(8) << pid << std::setw(8) << tally.files
            << std::setw(12) << tally.bytes << std::setw(11) << tally.words << std::setw(9) << std::fixed
            << std::setprecision(2) << time.count() << '\n';
}

int run(const std::vector<std::string>& arguments) {
  execnet::Group group(std::vector<execnet::XSpec>(std::max(1U, std::thread::hardware_concurrency()), "popen"));
  const std::string directory =
      arguments.empty() ? group[0]
                              .remote_exec("import sysconfig; channel.send(sysconfig.get_paths()['stdlib'])")
                              .receive<std::string>()
                        : arguments[0];
  Work work(python_files(directory));
  if (work.files().empty()) {
    throw std::runtime_error("there is no .py file in " + directory);
  }
  std::cout << work.files().size() << " files of " << directory << " by " << group.size() << " gateways\n";

  const auto start = std::chrono::steady_clock::now();
  const std::vector<Share> shares = count_by_all(group, work);
  const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;

  std::cout << "id           pid   files       bytes      words  seconds\n";
  Tally total;
  for (std::size_t i = 0; i < shares.size(); ++i) {
    const execnet::Gateway gateway = group[i];
    print_row(gateway.id(), std::to_string(gateway.rinfo().pid), shares[i].tally, shares[i].time);
    total += shares[i].tally;
  }
  print_row("total", "", total, time);

  if (const Tally here = count_here(work.files()); here != total) {
    throw std::runtime_error("counted here, there are " + std::to_string(here.words) + " words in " +
                             std::to_string(here.bytes) + " bytes");
  }
  std::cout << "A count in this process gives the same.\n";
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << "word_count: " << error.what() << '\n';
    return 1;
  }
}
