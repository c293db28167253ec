// Something that happens once and can be waited for beside other descriptors. Any thread.
#pragma once

#include "base/fd.hpp"

namespace execnet::base {

class Event {
 public:
  Event();

  // Readable once it has happened.
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] bool has_happened() const;
  void signal();

 private:
  const Fd fd_;
};

}  // namespace execnet::base
