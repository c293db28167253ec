// The children of a guard: what has ended of them, and how to kill those that have not.
//
// Whatever the kernel refuses, this comes to an end. Each question has a second way to ask it: a filter of system calls
// (seccomp(2)) may forbid one of the two, and /proc may be missing, or show the processes of another PID namespace,
// whose numbers mean nothing here. So no number is taken from /proc on trust: it is a child's only if wait says so.
//
// One thread, no allocation, nothing but system calls.
#pragma once

#include <sys/types.h>

namespace execnet::guard {

inline constexpr int kStillRuns = -1;  // no wait status

// Which children are not killed: none, or those that are in a session of their own by then. That is no session of
// the program that is guarded, neither the one in which it was started nor one that it has made for itself.
struct Detached {
  bool are_kept;
  pid_t session;         // in which the program was started
  const pid_t& program;  // 0 until it was
};

class Children {
 public:
  // `status` is to become the wait status of `child`, as soon as that has been collected. The kernel writes it as it
  // takes the child away, where it can: whoever kills this process cannot come between.
  Children(pid_t child, int& status, const Detached& detached) : child_(child), status_(status), detached_(detached) {}

  enum class Left { kSome, kNone, kUnknown };
  // Collects all that have ended. `options` are those of waitid(2): WNOHANG, or 0 to wait for the first. kUnknown: the
  // kernel refuses to say, and errno is why.
  Left collect(int options);

  // Kills all of them that are not kept, again and again: a child that dies hands its own children to us. Returns when
  // none of these is left, or none that may be killed, or when nothing has come of it for a second.
  void kill_all();

 private:
  struct Count {
    int killed = 0;
    int refused = 0;  // they run as somebody else
    int kept = 0;
    int collected = 0;  // they have ended, and only collecting them has told that they were children

    [[nodiscard]] int seen() const { return killed + refused + kept + collected; }
  };

  [[nodiscard]] bool is_child(pid_t pid, Count& count);
  [[nodiscard]] bool is_kept(pid_t pid) const;
  void kill_one(pid_t pid, Count& count);
  bool kill_listed(Count& count);
  void kill_in_table(Count& count);
  void kill_by_number(Count& count);
  bool kill_numbers(pid_t from, pid_t to, Count& count);

  const pid_t child_;
  int& status_;
  const Detached detached_;
  bool can_wait_ = true;  // whether the kernel tells of children at all
};

// Whether the numbers in /proc are those of this process's PID namespace: it may be missing, or that of another one.
bool proc_is_ours();

// The decimal number that a text consists of; 0 if it is anything else.
pid_t number_in(const char* text);

}  // namespace execnet::guard
