// What a gateway runs to listen for `socket//installvia=`, against those who are not meant.
#include "gateway/socket_start.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <execnet/execnet.hpp>

#include "transport/address.hpp"

namespace execnet::core {
namespace {

using namespace std::chrono_literals;

constexpr const char* kToken = "0123456789abcdef";

// A gateway that listens, and would write a file if it were made to start anything.
class Listener : public testing::Test {
 protected:
  explicit Listener(double seconds = 20)
      : channel_(group_[0].remote_exec(function(std::string(listener_source()), "listen"),
                                       Dict{{"token", Bytes(kToken)},
                                            {"argv", List{Bytes("sh"), Bytes("-c"), Bytes("echo started; exec cat")}},
                                            {"env", Dict{}},
                                            {"seconds", seconds}})) {
    std::tie(address_.port, place_) = channel_.receive<std::pair<int, std::string>>(20s);
    address_.host = "127.0.0.1";
  }

  void say(std::string_view bytes) {
    stream_ = transport::connect(address_, {}, "");
    ASSERT_EQ(::send(stream_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }

  std::string answer() {
    std::string bytes(100, '\0');
    const ssize_t count = ::recv(stream_.get(), bytes.data(), bytes.size(), 0);
    return bytes.substr(0, static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
  }

  std::string refusal() {
    try {
      static_cast<void>(channel_.receive(20s));
    } catch (const RemoteError& error) {
      return error.what();
    }
    return "started";
  }

  Group group_{"popen"};
  Channel channel_;
  transport::Address address_;
  std::string place_;
  base::Fd stream_;
};

class ShortListener : public Listener {
 protected:
  ShortListener() : Listener(1) {}
};

TEST_F(Listener, StartsTheProgramForWhoHasTheToken) {
  EXPECT_EQ(place_, this_place());
  say(kToken);
  EXPECT_GT(channel_.receive<int>(20s), 0);
  EXPECT_EQ(answer(), "started\n");
}

TEST_F(Listener, RefusesAWrongToken) {
  say("0123456789abcdeF");
  EXPECT_EQ(answer(), "");
  EXPECT_NE(refusal().find("did not begin with the token"), std::string::npos);
}

TEST_F(Listener, RefusesWhoHangsUpEarly) {
  say("0123");
  ::shutdown(stream_.get(), SHUT_WR);
  EXPECT_EQ(answer(), "");
  EXPECT_NE(refusal().find("did not begin with the token"), std::string::npos);
}

TEST_F(Listener, ListensOnce) {
  say("garbage that is no token");
  EXPECT_NE(refusal().find("did not begin with the token"), std::string::npos);
  EXPECT_THROW(transport::connect(address_, {}, ""), HostNotFound);
}

TEST_F(ShortListener, DoesNotListenForEver) {
  EXPECT_NE(refusal().find("timed out"), std::string::npos);
  EXPECT_THROW(transport::connect(address_, {}, ""), HostNotFound);
}

TEST_F(ShortListener, DoesNotWaitForATokenForEver) {
  say("0123");
  EXPECT_NE(refusal().find("timed out"), std::string::npos);
}

}  // namespace
}  // namespace execnet::core
