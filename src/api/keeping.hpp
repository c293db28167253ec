// For calls for several channels or gateways, that stop at one of them.
#pragma once

#include <execnet/error.hpp>
#include <execnet/multichannel.hpp>
#include <memory>
#include <utility>

namespace execnet {

// Runs `call`. When it throws, the error gets what `partial` has by then.
template <typename Call>
void keeping(Partial& partial, Call&& call) {
  try {
    std::forward<Call>(call)();
  } catch (Error& error) {
    error.set_partial(std::make_shared<const Partial>(std::move(partial)));
    throw;
  }
}

}  // namespace execnet
