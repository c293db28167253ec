// How gateways come to their end: in order, by all means that are needed, and always in time.
//
// Any thread; several may end the same gateways at once.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "base/wait.hpp"

namespace execnet::core {

class GatewayEnd;

// The most that ending takes longer than its deadline.
inline constexpr std::chrono::milliseconds kEndsLate{200};

// Tells all of them to exit, a proxy when nothing goes through it any more, and waits until they have. What is left
// shortly before the deadline loses its stream where it has no process here, else gets SIGTERM, then SIGKILL with all
// it has started; see Timetable in ending.cpp. Without a deadline it waits for as long as they take.
//
// All are declared gone.
struct Ending {
  // Those whose end is not seen kEndsLate after the deadline. They are killed, but the kernel is not done with them:
  // their loop is to run on, which collects them.
  std::vector<std::shared_ptr<GatewayEnd>> unseen;
  // Whether none of them was ended by a lost stream or by a signal of ours.
  bool by_themselves = true;
};
Ending end_in_order(const std::vector<std::shared_ptr<GatewayEnd>>& gateways, const base::Wait& wait);

// Only tells those to exit that nothing else of these goes through. Never waits.
void tell_to_exit(const std::vector<std::shared_ptr<GatewayEnd>>& gateways);

}  // namespace execnet::core
