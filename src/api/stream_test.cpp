// Streams over channels of a real interpreter.
#include <execnet/stream.hpp>

#include <gtest/gtest.h>

#include <execnet/execnet.hpp>
#include <string>
#include <vector>

namespace execnet {
namespace {

TEST(ChannelStreams, WhatIsWrittenComesOutAsItIs) {
  Group group{"popen"};
  const Channel channel = group[0].remote_exec("for item in channel: channel.send(item)");
  {
    ChannelWriter out(channel);
    out << "the answer is " << 42 << '\n' << "und mit \xc3\xa4" << std::flush;
    out << " und ohne Ende";
  }
  EXPECT_EQ(channel.receive<std::string>(), "the answer is 42\nund mit \xc3\xa4");
  EXPECT_EQ(channel.receive<std::string>(), " und ohne Ende");
  EXPECT_FALSE(channel.isclosed());
}

TEST(ChannelStreams, ALongTextIsSentInPiecesThatAreTexts) {
  Group group{"popen"};
  const Channel channel = group[0].remote_exec("channel.send(''.join(iter(channel.receive, '')))");
  std::string text = "x";  // an odd one, so that characters lie across the ends of pieces
  while (text.size() < 30000) {
    text += "\xe2\x82\xac";
  }
  ChannelWriter(channel) << text;
  channel.send("");
  EXPECT_EQ(channel.receive<std::string>(), text);
}

TEST(ChannelStreams, BytesOfAnyEncodingGoBothWays) {
  Group group{"popen"};
  const Channel channel = group[0].remote_exec(R"(
text = channel.makefile("r", encoding="utf-16").readline()
channel.makefile("w", encoding="latin-1").write(text)
)");
  using std::string_literals::operator""s;
  const std::string text = "\xff\xfe\xe4\0\n\0"s;
  ChannelWriter(channel, ChannelWriter::Items::kBytes) << text.substr(0, 3) << std::flush << text.substr(3);
  ChannelReader in(channel);
  std::string line;
  std::getline(in, line);
  EXPECT_EQ(line, "\xe4");
}

TEST(ChannelStreams, LinesAreReadAcrossItems) {
  Group group{"popen"};
  ChannelReader in(group[0].remote_exec(R"(
file = channel.makefile("w")
print("one", file=file)
channel.send(b"two\nth")
channel.send("")
channel.send("ree")
)"));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    lines.push_back(line);
  }
  EXPECT_EQ(lines, (std::vector<std::string>{"one", "two", "three"}));
  EXPECT_TRUE(in.eof());
  EXPECT_FALSE(in.bad());
}

TEST(ChannelStreams, ErrorsMakeTheStreamBadOrComeThrough) {
  Group group{"popen"};
  ChannelReader quiet(group[0].remote_exec("channel.send('a'); 1 / 0"));
  std::string word;
  EXPECT_FALSE(quiet >> word >> word);
  EXPECT_TRUE(quiet.bad());

  ChannelReader loud(group[0].remote_exec("channel.send('a'); 1 / 0"));
  loud.exceptions(std::ios::badbit);
  EXPECT_THROW(loud >> word >> word, RemoteError);

  ChannelReader number(group[0].remote_exec("channel.send(1)"));
  number.exceptions(std::ios::badbit);
  EXPECT_THROW(number >> word, DataFormatError);

  const Channel closed = group[0].remote_exec("pass");
  closed.waitclose();
  ChannelWriter out(closed);
  out << "too late" << std::flush;
  EXPECT_TRUE(out.bad());
  ChannelWriter told(closed);
  told.exceptions(std::ios::badbit);
  EXPECT_THROW(told << "too late" << std::flush, ChannelClosed);
}

}  // namespace
}  // namespace execnet
