#include <gtest/gtest.h>

#include <execnet/error.hpp>
#include <execnet/xspec.hpp>
#include <string>

#include "transport/transport.hpp"

namespace execnet {
namespace {

// The text of the SpecError that `call` throws.
template <typename Call>
std::string refusal(Call&& call) {
  try {
    call();
  } catch (const SpecError& error) {
    return error.what();
  }
  ADD_FAILURE() << "was accepted";
  return {};
}

std::string parse_refusal(std::string_view text) {
  return refusal([&] { XSpec spec(text); });
}

std::string validate_refusal(std::string_view text) {
  const XSpec spec(text);
  return refusal([&] { spec.validate(); });
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

TEST(XSpec, SplitsKeysAndValues) {
  const XSpec spec("ssh=user@host//python=/opt/a=b/python3//dont_write_bytecode//env:A=x=y//env:B=//own=1");
  EXPECT_EQ(spec.get("ssh"), "user@host");
  EXPECT_EQ(spec.get("python"), "/opt/a=b/python3") << "only the first = separates";
  EXPECT_TRUE(spec.has("dont_write_bytecode"));
  EXPECT_EQ(spec.get("dont_write_bytecode"), std::nullopt);
  EXPECT_EQ(spec.get("own"), "1");
  EXPECT_FALSE(spec.has("id"));
  EXPECT_EQ(spec.env(), (std::map<std::string, std::string>{{"A", "x=y"}, {"B", ""}}));
  EXPECT_EQ(spec.settings().size(), 4U);
}

TEST(XSpec, TextIsExactAndDecidesEquality) {
  XSpec spec("popen//id=a");
  spec.set("id", "b");
  EXPECT_EQ(spec.text(), "popen//id=a");
  EXPECT_EQ(spec.get("id"), "b");
  EXPECT_EQ(spec, XSpec("popen//id=a"));
  EXPECT_FALSE(spec == XSpec("id=a//popen"));
}

TEST(XSpec, SetAddsReplacesAndRemoves) {
  XSpec spec("popen");
  spec.set("chdir", "here");
  EXPECT_EQ(spec.get("chdir"), "here");
  spec.set("chdir", std::nullopt);
  EXPECT_FALSE(spec.has("chdir"));
  spec.set("chdir", std::nullopt);
}

TEST(XSpec, RefusesMalformedTextAndShowsTheForm) {
  for (const char* text : {"", "popen//", "//popen", "popen////id=a", "//", "=x", "popen//=x", "="}) {
    EXPECT_TRUE(contains(parse_refusal(text), "type[=value]//key[=value]")) << text;
  }
  EXPECT_TRUE(contains(parse_refusal(""), "empty specification"));
  EXPECT_TRUE(contains(parse_refusal("popen//"), "empty part in specification \"popen//\""));
}

TEST(XSpec, RefusesDuplicateAndReservedKeys) {
  EXPECT_TRUE(contains(parse_refusal("popen//id=a//id=b"), "duplicate key \"id\""));
  EXPECT_TRUE(contains(parse_refusal("popen//popen"), "duplicate key \"popen\""));
  EXPECT_TRUE(contains(parse_refusal("popen//env:A=1//env:A=2"), "duplicate key \"env:A\""));
  EXPECT_TRUE(contains(parse_refusal("popen//_x=1"), "\"_x\""));
  EXPECT_TRUE(contains(parse_refusal("_"), "\"_\""));
}

TEST(XSpec, RefusesHalfAnEnvironmentVariable) {
  EXPECT_TRUE(contains(parse_refusal("popen//env:=x"), "env:NAME=value"));
  EXPECT_TRUE(contains(parse_refusal("popen//env:"), "env:NAME=value"));
  EXPECT_TRUE(contains(parse_refusal("popen//env:A"), "env:NAME=value"));
}

TEST(XSpec, RefusesWhatNoEnvironmentVariableCanHave) {
  const std::string nul("a\0b", 3);
  for (const auto& [name, value] :
       {std::pair<std::string, std::string>{"", "x"}, {"A=B", "x"}, {nul, "x"}, {"A", nul}}) {
    XSpec spec("popen");
    spec.set_env({{name, value}});
    EXPECT_TRUE(contains(refusal([&] { spec.validate(); }), "no environment variable can have")) << name;
  }
}

TEST(XSpec, ProfileIsAnotherNameOfExecmodel) {
  EXPECT_EQ(XSpec("popen").execmodel(), std::nullopt);
  for (const char* text :
       {"popen//execmodel=gevent", "popen//profile=gevent", "popen//execmodel=gevent//profile=gevent"}) {
    const XSpec spec(text);
    spec.validate();
    EXPECT_EQ(spec.execmodel(), "gevent");
  }
  EXPECT_EQ(
      validate_refusal("popen//execmodel=thread//profile=gevent"),
      "both execmodel=thread and profile=gevent in specification \"popen//execmodel=thread//profile=gevent\"; they "
      "are two names of the same key: give one of them");
  EXPECT_TRUE(contains(validate_refusal("popen//profile"), "profile=value"));
}

TEST(XSpec, RefusesNulBytes) {
  EXPECT_TRUE(contains(parse_refusal(std::string_view("popen\0//id=a", 12)), "NUL byte"));
  XSpec spec("popen");
  spec.set("python", std::string("a\0b", 3));
  EXPECT_TRUE(contains(refusal([&] { spec.validate(); }), "NUL byte"));
}

TEST(XSpec, TypeIsTheOneKindThatWasGiven) {
  EXPECT_EQ(XSpec("popen").type(), "popen");
  EXPECT_EQ(XSpec("id=a//ssh=host").type(), "ssh");
  EXPECT_TRUE(contains(validate_refusal("id=a"), "no gateway type"));
  EXPECT_TRUE(contains(validate_refusal("telnet=host"), "the types are popen, ssh="));
  EXPECT_TRUE(contains(validate_refusal("popen//ssh=host"), "more than one gateway type"));
}

TEST(XSpec, RefusesProxiesAndSocketsThatMakeNoSense) {
  for (const auto& [text, why] : std::initializer_list<std::pair<const char*, const char*>>{
           {"popen//via", "no value for via"},
           {"popen//via=a//id=a", "its own proxy"},
           {"via=a", "no gateway type"},
           {"socket=host:1//via=a", "both socket and via="},
           {"socket", "no port in socket="},
           {"socket=host", "no port in socket=host"},
           {"socket=host:", "no port number"},
           {"socket=host:0", "no port number"},
           {"socket=host:65536", "no port number"},
           {"socket=host:http", "no port number"},
           {"socket=:8888", "no host"},
           {"socket=[]:8888", "no host"},
           {"socket=::1:9", "without its brackets"},
           {"socket=[::1]", "no port"},
           {"socket//installvia", "no value for installvia"},
           {"socket//installvia=a//id=a", "cannot install itself"},
           {"socket=host:1//installvia=a", "both an address"},
           {"popen//installvia=a", "installvia= without socket"},
           {"vagrant_ssh", "no value for vagrant_ssh"},
       }) {
    EXPECT_TRUE(contains(validate_refusal(text), why)) << text << ": " << validate_refusal(text);
  }
}

TEST(XSpec, AWindowIsANumberOfBytes) {
  EXPECT_EQ(XSpec("popen").window(), std::nullopt);
  EXPECT_EQ(XSpec("popen//window=100").window(), 100U);
  EXPECT_EQ(XSpec("popen//window=3K").window(), 3U << 10);
  EXPECT_EQ(XSpec("popen//window=8M").window(), 8U << 20);
  EXPECT_EQ(XSpec("popen//window=2G").window(), std::uint64_t{2} << 30);
  EXPECT_EQ(XSpec("popen//window=9223372036854775807").window(), 9223372036854775807U);
}

TEST(XSpec, AGraceIsANumberOfSeconds) {
  using std::chrono::milliseconds;
  EXPECT_EQ(XSpec("popen").grace(), XSpec::kGrace);
  EXPECT_EQ(XSpec("popen//grace=0").grace(), milliseconds(0));
  EXPECT_EQ(XSpec("popen//grace=5").grace(), milliseconds(5000));
  EXPECT_EQ(XSpec("popen//grace=0.25").grace(), milliseconds(250));
  EXPECT_EQ(XSpec("popen//grace=1e-9").grace(), milliseconds(1));
  EXPECT_EQ(XSpec("popen//grace=1000000").grace(), XSpec::kMostSeconds);
}

TEST(XSpec, AConnectTimeoutIsANumberOfSecondsToo) {
  EXPECT_EQ(XSpec("popen").connect_timeout(), std::nullopt);
  EXPECT_EQ(XSpec("popen//connect_timeout=2.5").connect_timeout(), std::chrono::milliseconds(2500));
  for (const char* wrong : {"connect_timeout=", "connect_timeout=-1", "connect_timeout=1s", "connect_timeout=inf"}) {
    EXPECT_THROW(XSpec(std::string("popen//") + wrong).validate(), SpecError) << wrong;
  }
}

TEST(XSpec, WhatIsDetachedIsKeptOnRequest) {
  EXPECT_TRUE(XSpec("popen//detached=keep").keeps_detached());
  EXPECT_FALSE(XSpec("popen//detached=kill").keeps_detached());
  EXPECT_FALSE(XSpec("popen").keeps_detached());
}

TEST(XSpec, ValidateAcceptsWhatMakesSense) {
  for (const char* text : {"popen",
                           "popen=1",
                           "popen//python=python3 -X dev",
                           "popen//nice=10",
                           "popen//nice=-5",
                           "popen//nice=+5",
                           "popen//chdir=a b//id=x",
                           "popen//window=1",
                           "popen//window=8M",
                           "popen//dont_write_bytecode",
                           "popen//grace=0.5//detached=kill",
                           "popen//detached=kill//isolate=pidns",
                           "ssh=host//detached=keep",
                           "ssh=host",
                           "ssh=user@host",
                           "ssh=-p 2222 host",
                           "ssh=-o 'ProxyCommand=nc %h %p' host//ssh_config=file",
                           "popen//anything=else",
                           "popen//via=gw0",
                           "popen//transport=stdio",
                           "popen//preload//transport=socket",
                           "ssh=host//transport=stdio//stdin=close//stdout=stderr//stderr=devnull",
                           "socket=host:8888//transport=socket",
                           "popen//stdin=inherit//stdout=null",
                           "popen//stdout=callback//preload",
                           "ssh=host//via=gw0",
                           "vagrant_ssh=box//ssh_config=file",
                           "socket=host:8888",
                           "socket=[::1]:8888",
                           "socket//installvia=gw0"}) {
    EXPECT_NO_THROW(XSpec(text).validate()) << text;
  }
}

TEST(XSpec, ValidateRefusesWhatCannotWork) {
  for (const char* text :
       {"ssh", "ssh=", "popen//id", "popen//id=", "popen//python=", "popen//python", "popen//transport",
        "popen//stdin=", "popen//stderr", "popen//stdout=", "popen//chdir=", "ssh=host//ssh_config=", "popen//nice",
        "popen//window", "popen//window=", "popen//grace", "popen//grace=", "popen//detached", "popen//detached="}) {
    EXPECT_TRUE(contains(validate_refusal(text), "=value")) << text;
  }
  for (const char* text :
       {"popen//nice=high", "popen//nice=1.5", "popen//nice=+-1", "popen//nice= 1", "popen//nice=99999999999"}) {
    EXPECT_TRUE(contains(validate_refusal(text), "is not an integer")) << text;
  }
  for (const char* text :
       {"popen//window=0", "popen//window=0M", "popen//window=-1", "popen//window=8MB", "popen//window=8m",
        "popen//window=8 M", "popen//window=M", "popen//window=1.5M", "popen//window=+1", "popen//window=none",
        "popen//window=9223372036854775808", "popen//window=8589934592G"}) {
    EXPECT_TRUE(contains(validate_refusal(text), "is not a number of bytes")) << text;
  }
  for (const char* text : {"popen//grace=-1", "popen//grace=inf", "popen//grace=nan", "popen//grace=5s",
                           "popen//grace= 1", "popen//grace=1,5", "popen//grace=1000001", "popen//grace=1e999"}) {
    EXPECT_TRUE(contains(validate_refusal(text), "is not a number of seconds from 0 to 1000000")) << text;
  }
  for (const char* text : {"popen//detached=yes", "popen//detached=Keep"}) {
    EXPECT_TRUE(contains(validate_refusal(text), "the form is detached=keep or detached=kill")) << text;
  }
  EXPECT_TRUE(contains(validate_refusal("popen//detached=keep//isolate=pidns"), "detached=keep with isolate="));
  for (const char* text : {"ssh=host//transport=socket", "vagrant_ssh=box//transport=socket",
                           "socket=host:8888//transport=stdio", "popen//preload//transport=stdio"}) {
    EXPECT_TRUE(contains(validate_refusal(text), "leave out transport=")) << text;
  }
  for (const char* text :
       {"popen//transport=pipe", "popen//stdin=stderr", "popen//stdout=file", "popen//stderr=null"}) {
    EXPECT_TRUE(contains(validate_refusal(text), "the form is ")) << text;
  }
  for (const char* text : {"ssh=host//stdin=inherit", "popen//via=gw0//stdin=inherit", "popen//preload//stdin=inherit",
                           "popen//transport=stdio//stdin=inherit", "ssh=host//stdout=callback",
                           "popen//via=gw0//stdout=callback", "popen//transport=stdio//stdout=callback"}) {
    EXPECT_TRUE(contains(validate_refusal(text), " with ")) << text;
  }
  EXPECT_TRUE(contains(validate_refusal("popen//python='a"), "no closing quote"));
  EXPECT_TRUE(contains(validate_refusal("popen//python=  "), "no program"));
  EXPECT_TRUE(contains(validate_refusal("ssh=-oProxyCommand=evil"), "no host"));
  EXPECT_TRUE(contains(validate_refusal("ssh= "), "no host"));
  EXPECT_TRUE(contains(validate_refusal("ssh=-p 22 ''"), "no host"));
}

TEST(XSpec, MessagesShowNoValueOfAVariable) {
  EXPECT_EQ(transport::without_secrets("popen//env:TOKEN=secret//id=a//env:B="),
            "popen//env:TOKEN=***//id=a//env:B=***");
  EXPECT_EQ(transport::without_secrets("env:URL=http://user:secret@host//popen//own=1"), "env:URL=***//***//popen//***")
      << "a value ends at //, and what follows may be the rest of it";
  EXPECT_EQ(transport::without_secrets("popen//own=1//env:A"), "popen//own=1//env:A");
  for (const char* text : {"popen//env:A=secret//", "popen//env:A=x//=secret", "popen//env:A=x//_secret",
                           "popen//env:A=secret//env:A=secret", "popen//env:A=secret//id=1//id=2",
                           "env:A=x//secret//secret", "env:=secret", "popen//env:A=secret//env:B"}) {
    EXPECT_FALSE(contains(parse_refusal(text), "secret")) << parse_refusal(text);
  }
  EXPECT_FALSE(contains(parse_refusal(std::string_view("popen//env:A=secret\0", 20)), "secret"));
  for (const char* text :
       {"env:A=secret", "popen//ssh=host//env:A=secret", "popen//env:A=secret//nice=x", "popen//id//env:A=secret",
        "socket=nowhere//env:A=secret", "popen//env:A=secret//preload=1"}) {
    EXPECT_FALSE(contains(validate_refusal(text), "secret")) << validate_refusal(text);
  }
}

}  // namespace
}  // namespace execnet
