// What a test sends: messages as Writing makes them.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "connection/outbox.hpp"

namespace execnet::testing {

inline std::shared_ptr<core::Outgoing> data_message(std::uint32_t channel, std::string_view payload) {
  auto made = std::make_shared<core::Outgoing>();
  made->type = wire::FrameType::kData;
  made->channel = channel;
  made->payload = base::Buffer(payload);
  return made;
}

}  // namespace execnet::testing
