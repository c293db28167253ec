// What a gateway runs to listen for `socket//installvia=`, against those who are not meant.
// worker/socket_listener_test.py is about what needs no gateway.
#include "gateway/socket_start.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <execnet/execnet.hpp>
#include <string>
#include <string_view>
#include <tuple>

#include "gateway/socket_listener_source.hpp"
#include "transport/address.hpp"

namespace execnet::core {
namespace {

using namespace std::chrono_literals;

constexpr char kToken[] = "0123456789abcdef";

// A gateway that listens, and would write a file if it were made to start anything.
class Listener : public testing::Test {
 protected:
  explicit Listener(double seconds = 20)
      : channel_(group_[0].remote_exec(function(std::string(socket_listener_source()), "listen"),
                                       Dict{{"peer", Tuple{socket_.address().host, socket_.address().port}},
                                            {"token", Bytes(kToken)},
                                            {"argv", List{Bytes("sh"), Bytes("-c"), Bytes("echo started; exec cat")}},
                                            {"env", Dict{}},
                                            {"seconds", seconds}})) {
    std::tie(port_, place_) = channel_.receive<std::tuple<int, std::string>>(20s);
  }

  void connect() { stream_ = socket_.connect(port_, {}, ""); }

  void say(std::string_view bytes) {
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
  transport::LoopbackSocket socket_;
  Channel channel_;
  int port_ = 0;
  std::string place_;
  base::Fd stream_;
};

class ShortListener : public Listener {
 protected:
  ShortListener() : Listener(1) {}
};

TEST_F(Listener, StartsTheProgramForWhoHasTheToken) {
  EXPECT_EQ(place_, this_place());
  connect();
  say(kToken);
  EXPECT_GT(channel_.receive<int>(20s), 0);
  EXPECT_EQ(answer(), "started\n");
}

TEST_F(Listener, TakesATokenThatComesInPieces) {
  connect();
  say("0123");
  say(kToken + 4);
  EXPECT_EQ(answer(), "started\n");
}

TEST_F(Listener, RefusesWhoHasTheAddressWithAWrongToken) {
  connect();
  say("0123456789abcdeF");
  EXPECT_NE(refusal().find("has not said the token"), std::string::npos);
  EXPECT_EQ(answer(), "");
}

TEST_F(Listener, RefusesWhoHasTheAddressAndHangsUpEarly) {
  connect();
  say("0123");
  ::shutdown(stream_.get(), SHUT_WR);
  EXPECT_NE(refusal().find("has not said the token"), std::string::npos);
  EXPECT_EQ(answer(), "");
}

TEST_F(Listener, LetsNobodyInWithTheTokenAndAnotherAddress) {
  try {
    const base::Fd other = transport::connect({"127.0.0.1", port_}, base::Wait().until(base::Clock::now() + 200ms), "");
    ::send(other.get(), kToken, sizeof kToken - 1, MSG_NOSIGNAL);
    char byte = 0;
    EXPECT_LE(::recv(other.get(), &byte, 1, 0), 0) << "it was let in";
  } catch (const HostNotFound&) {  // where the kernel keeps him out
  }
  connect();
  say(kToken);
  EXPECT_EQ(answer(), "started\n");
}

TEST_F(Listener, StartsTheProgramOnce) {
  connect();
  say(kToken);
  EXPECT_EQ(answer(), "started\n");
  EXPECT_THROW(transport::LoopbackSocket().connect(port_, {}, ""), HostNotFound);
}

TEST_F(ShortListener, DoesNotListenForEver) {
  EXPECT_NE(refusal().find("nobody has said the token within 1"), std::string::npos);
  EXPECT_THROW(connect(), HostNotFound);
}

TEST_F(ShortListener, DoesNotWaitForATokenForEver) {
  connect();
  say("0123");
  EXPECT_NE(refusal().find("nobody has said the token within 1"), std::string::npos);
}

}  // namespace
}  // namespace execnet::core
