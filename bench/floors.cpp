// The figures of floors.py without an interpreter: bytes between two processes by pipes and sockets, and a copy. JSON
// on stdout, in seconds, the best of several.
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iostream>
#include <vector>

namespace {

constexpr int kTimes = 5;
constexpr int kRounds = 5000;
constexpr std::size_t kBig = std::size_t{64} << 20;
constexpr std::size_t kPiece = std::size_t{64} << 10;

void check(bool condition, const char* what) {
  if (!condition) {
    std::perror(what);
    std::exit(1);
  }
}

double best(const std::function<void()>& work) {
  double seconds = 1e9;
  for (int i = 0; i < kTimes; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    seconds = std::min(seconds, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return seconds;
}

// Two descriptors: bytes written to the second can be read from the first.
using Ends = std::array<int, 2>;

Ends pipe_ends() {
  Ends ends{};
  check(::pipe(ends.data()) == 0, "pipe");
  return ends;
}

Ends socket_ends() {
  Ends ends{};
  check(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()) == 0, "socketpair");
  return ends;
}

// Another process, for the life of this object, that reads from one pipe and writes to `out`.
class Other {
 public:
  Other(Ends out, const std::function<void(int in, int out)>& work) : to_(pipe_ends()), from_(out), pid_(::fork()) {
    check(pid_ >= 0, "fork");
    if (pid_ == 0) {
      ::close(to_[1]);
      ::close(from_[0]);
      work(to_[0], from_[1]);
      ::_exit(0);
    }
    ::close(to_[0]);
    ::close(from_[1]);
  }
  ~Other() {
    ::close(to_[1]);
    ::close(from_[0]);
    ::waitpid(pid_, nullptr, 0);
  }
  Other(const Other&) = delete;
  Other& operator=(const Other&) = delete;

  void say() const { check(::write(to_[1], "!", 1) == 1, "write"); }
  std::size_t read(char* space, std::size_t size) const {
    const ssize_t count = ::read(from_[0], space, size);
    check(count > 0, "read");
    return static_cast<std::size_t>(count);
  }

 private:
  const Ends to_;
  const Ends from_;
  const pid_t pid_;
};

double echo() {
  const Other other(pipe_ends(), [](int in, int out) {
    for (char byte = 0; ::read(in, &byte, 1) == 1;) {
      check(::write(out, &byte, 1) == 1, "write");
    }
  });
  return best([&] {
           char byte = 0;
           for (int i = 0; i < kRounds; ++i) {
             other.say();
             other.read(&byte, 1);
           }
         }) /
         kRounds;
}

// The same small memory on both sides: the transport alone.
double stream(Ends ends) {
  const Other other(ends, [](int in, int out) {
    const std::vector<char> piece(kPiece, 'x');
    for (char byte = 0; ::read(in, &byte, 1) == 1;) {
      for (std::size_t sent = 0; sent < kBig;) {
        const ssize_t count = ::write(out, piece.data(), std::min(kPiece, kBig - sent));
        check(count > 0, "write");
        sent += static_cast<std::size_t>(count);
      }
    }
  });
  std::vector<char> space(kPiece);
  return best([&] {
    other.say();
    for (std::size_t count = 0; count < kBig;) {
      count += other.read(space.data(), space.size());
    }
  });
}

double copy() {
  const std::vector<char> source(kBig, 'x');
  return best([&] {
    void* const fresh = ::mmap(nullptr, kBig, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(fresh != MAP_FAILED, "mmap");
    std::memcpy(fresh, source.data(), kBig);
    ::munmap(fresh, kBig);
  });
}

}  // namespace

int main() {
  std::cout << "{\"a byte over pipes, in C\": " << echo() << ", \"64 MiB by a pipe, in C\": " << stream(pipe_ends())
            << ", \"64 MiB by a unix socket, in C\": " << stream(socket_ends())
            << ", \"64 MiB copied to fresh memory, in C\": " << copy() << "}\n";
}
