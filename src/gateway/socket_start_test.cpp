// What a gateway runs to listen for `socket//installvia=`, against those who are not meant.
#include "gateway/socket_start.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <execnet/execnet.hpp>
#include <tuple>
#include <vector>

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
    std::tie(address_.host, address_.port, place_) = channel_.receive<std::tuple<std::string, int, std::string>>(20s);
  }

  void say(std::string_view bytes) {
    stream_ = transport::connect(address_, {}, "");
    ASSERT_EQ(::send(stream_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), static_cast<ssize_t>(bytes.size()));
  }

  [[nodiscard]] std::vector<base::Fd> connect_others(int count) const {
    std::vector<base::Fd> others;
    while (count-- > 0) {
      others.push_back(transport::connect(address_, {}, ""));
    }
    return others;
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
  EXPECT_EQ(address_.host, "127.0.0.1");
  say(kToken);
  EXPECT_GT(channel_.receive<int>(20s), 0);
  EXPECT_EQ(answer(), "started\n");
}

TEST_F(Listener, TakesATokenThatComesInPieces) {
  say("0123");
  const auto others = connect_others(3);
  ASSERT_EQ(::send(stream_.get(), kToken + 4, 12, MSG_NOSIGNAL), 12);
  EXPECT_EQ(answer(), "started\n");
}

TEST_F(Listener, ClosesWhoHasAWrongTokenAndListensOn) {
  say("0123456789abcdeF");
  EXPECT_EQ(answer(), "");
  say("garbage that is longer than the token");
  EXPECT_EQ(answer(), "");
  say(kToken);
  EXPECT_EQ(answer(), "started\n");
}

TEST_F(Listener, ClosesWhoHangsUpEarlyAndListensOn) {
  say("0123");
  ::shutdown(stream_.get(), SHUT_WR);
  EXPECT_EQ(answer(), "");
  say(kToken);
  EXPECT_EQ(answer(), "started\n");
}

TEST_F(Listener, IsNotHeldUpByThoseWhoSayNothing) {
  const auto others = connect_others(100);  // some of which it closes
  say(kToken);
  EXPECT_EQ(answer(), "started\n");
  EXPECT_GT(channel_.receive<int>(20s), 0);
  for (const base::Fd& other : others) {
    char byte = 0;
    EXPECT_LE(::recv(other.get(), &byte, 1, 0), 0) << "the program has the one connection only";
  }
}

TEST_F(Listener, ClosesAfterAWhileWhoSaysNothing) {
  say("0123");
  EXPECT_EQ(answer(), "");
  say(kToken);
  EXPECT_EQ(answer(), "started\n");
}

TEST_F(Listener, StartsTheProgramOnce) {
  say(kToken);
  EXPECT_EQ(answer(), "started\n");
  EXPECT_THROW(transport::connect(address_, {}, ""), HostNotFound);
}

TEST_F(ShortListener, DoesNotListenForEver) {
  EXPECT_NE(refusal().find("nobody has said the token within 1"), std::string::npos);
  EXPECT_THROW(transport::connect(address_, {}, ""), HostNotFound);
}

TEST_F(ShortListener, DoesNotWaitForATokenForEver) {
  say("0123");
  EXPECT_NE(refusal().find("nobody has said the token within 1"), std::string::npos);
}

}  // namespace
}  // namespace execnet::core
