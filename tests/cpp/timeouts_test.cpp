// Any number of seconds is a time-out, of every call that takes one: huge ones and infinity mean for ever, negative
// ones now, and only nan is refused. tests/python/test_timeouts.py says the same of Python.
#include <gtest/gtest.h>

#include <execnet/execnet.hpp>
#include <functional>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace execnet {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Call {
  std::string name;
  std::function<void(Group&, Seconds)> with_nothing_to_wait_for;
  std::function<void(Group&, Seconds)> in_vain;  // throws TimeoutError; none: it always gets what it waits for
};

Channel channel_with_full_window(Group& group) {
  const Channel channel = group[0].remote_exec("channel.gateway.newchannel().receive()");
  channel.set_window(10);
  channel.send(Bytes("more than the window"));
  return channel;
}

std::vector<Call> calls() {
  return {
      {"receive",
       [](Group& group, Seconds time) { static_cast<void>(group[0].remote_exec("channel.send(1)").receive(time)); },
       [](Group& group, Seconds time) { static_cast<void>(group[0].newchannel().receive(time)); }},
      {"receive_bytes",
       [](Group& group, Seconds time) {
         static_cast<void>(group[0].remote_exec("channel.send(b'1')").receive_bytes(time));
       },
       [](Group& group, Seconds time) { static_cast<void>(group[0].newchannel().receive_bytes(time)); }},
      {"waitclose", [](Group& group, Seconds time) { group[0].remote_exec("pass").waitclose(time); },
       [](Group& group, Seconds time) { group[0].newchannel().waitclose(time); }},
      {"send", [](Group& group, Seconds time) { group[0].newchannel().send(1, time); },
       [](Group& group, Seconds time) { channel_with_full_window(group).send(1, time); }},
      {"remote_status", [](Group& group, Seconds time) { static_cast<void>(group[0].remote_status(time)); }, nullptr},
      {"join",
       [](Group&, Seconds time) {
         const Group own{"popen"};
         own[0].exit();
         own[0].join(time);
       },
       [](Group& group, Seconds time) { group[0].join(time); }},
      {"ReceiveQueue::get",
       [](Group& group, Seconds time) {
         static_cast<void>(group.remote_exec("channel.send(1)").make_receive_queue().get(time));
       },
       [](Group& group, Seconds time) {
         static_cast<void>(group.remote_exec("channel.receive()").make_receive_queue().get(time));
       }},
      {"terminate",
       [](Group&, Seconds time) {
         Group own{"popen"};
         own.terminate(time);
         EXPECT_EQ(own.size(), 0U);
       },
       nullptr},
  };
}

TEST(Timeouts, HugeAndInfiniteOnesMeanForEver) {
  Group group{"popen"};
  for (const Call& call : calls()) {
    SCOPED_TRACE(call.name);
    for (const double seconds : {1e9, 1e300, kInfinity}) {
      call.with_nothing_to_wait_for(group, Seconds(seconds));
    }
  }
}

TEST(Timeouts, NegativeOnesMeanNow) {
  Group group{"popen"};
  for (const Call& call : calls()) {
    SCOPED_TRACE(call.name);
    for (const double seconds : {0.0, -1.0, -1e300, -kInfinity}) {
      if (call.in_vain) {
        EXPECT_THROW(call.in_vain(group, Seconds(seconds)), TimeoutError);
      }
    }
  }
}

TEST(Timeouts, WithANegativeOneMembersAreKilledAtOnce) {
  for (const double seconds : {0.0, -1.0, -1e300, -kInfinity}) {
    Group group{"popen"};
    group[0].remote_exec("while True: pass");
    group.terminate(Seconds(seconds));
    EXPECT_EQ(group.size(), 0U);
  }
}

TEST(Timeouts, NanIsRefused) {
  Group group{"popen"};
  for (const Call& call : calls()) {
    SCOPED_TRACE(call.name);
    try {
      call.with_nothing_to_wait_for(group, Seconds(kNan));
      FAIL() << "it was taken";
    } catch (const std::invalid_argument& error) {
      EXPECT_STREQ(error.what(), "a timeout is a number of seconds, not nan");
    }
  }
}

}  // namespace
}  // namespace execnet
