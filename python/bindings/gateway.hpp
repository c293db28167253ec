// The Python class Gateway.
#pragma once

#include <nanobind/nanobind.h>

#include <execnet/gateway.hpp>
#include <memory>

#include "gateway/membership.hpp"

namespace execnet::python {

// What a Gateway object holds. THREAD: needs the GIL.
struct PyGateway {
  Gateway gateway;
  std::weak_ptr<core::Membership> membership;  // of the group that started it
  nanobind::object spec;                       // the program's own XSpec
};

}  // namespace execnet::python
