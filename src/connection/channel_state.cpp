#include "connection/channel_state.hpp"

namespace execnet::core {

std::string repr_of(const ChannelState& state) {
  const char* condition = state.closed ? "closed" : state.no_more_items ? "sendonly" : "open";
  return "<Channel id=" + std::to_string(state.id) + " " + condition + ">";
}

}  // namespace execnet::core
