#include <execnet/multichannel.hpp>

#include <exception>

namespace execnet {

void MultiChannel::send_each(const Value& item) const {
  for (const Channel& channel : channels_) {
    channel.send(item);
  }
}

void MultiChannel::waitclose() const {
  std::exception_ptr first;
  for (const Channel& channel : channels_) {
    try {
      channel.waitclose();
    } catch (const Error&) {
      if (!first) {
        first = std::current_exception();
      }
    }
  }
  if (first) {
    std::rethrow_exception(first);
  }
}

}  // namespace execnet
