// Tells whether a process descends from one that was started here. It does not trust what processes say of themselves.
//
// A number that another process names may be anybody's: it is looked up here before anything is sent to it. First a
// descriptor is opened, which stands for one process for ever; then the parents are read from /proc; and then all
// of it is read again. What is the same both times was so at the moment between, and if the descriptor's process has
// not ended by then, it is the one that was looked at.
//
// Owner: one thread at a time.
#pragma once

#include <sys/types.h>

#include <optional>

#include "base/fd.hpp"
#include "process/process.hpp"

namespace execnet::process {

class Descent {
 public:
  explicit Descent(const Process& root);  // which lives longer

  enum class Kind {
    kOurs,     // a descendant, or one that has ended already: may be signalled
    kOthers,   // somebody else's
    kUnknown,  // /proc is missing, of another PID namespace, or hides it: may be waited for, but not signalled
    kNone,     // there is none that could be looked at; errno is set
  };
  struct Found {
    Kind kind = Kind::kNone;
    base::Fd pidfd = base::Fd();
  };
  Found find(pid_t pid);

 private:
  // That one whose descendants were found last, and whose children need no further look.
  struct Parent {
    pid_t pid;
    base::Fd pidfd;
  };

  [[nodiscard]] bool reaches_root(pid_t pid) const;
  [[nodiscard]] bool is_child_of(const Parent& parent, pid_t pid) const;

  const Process& root_;
  const pid_t root_pid_;
  std::optional<Parent> parent_;
};

}  // namespace execnet::process
