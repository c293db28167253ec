#include <execnet/dump.hpp>
#include <execnet/error.hpp>

#include "base/buffer.hpp"
#include "wire/dump.hpp"

namespace execnet {
namespace {

// For values that are not sent: any channel may be in them.
class AnyChannels final : public wire::ChannelTable {
 public:
  std::uint32_t id_of(const ChannelRef& /*channel*/) override { return 0; }
  ChannelRef channel(std::uint32_t /*id*/) override { return nullptr; }
};

}  // namespace

bool can_send(const Value& value) {
  AnyChannels channels;
  base::Buffer out;
  try {
    wire::encode(value, out, &channels);
    return true;
  } catch (const DumpError&) {
    return false;
  }
}

}  // namespace execnet
