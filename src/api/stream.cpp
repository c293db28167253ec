#include <execnet/stream.hpp>

#include <algorithm>
#include <array>
#include <execnet/error.hpp>
#include <streambuf>
#include <string>
#include <utility>

namespace execnet {
namespace {

// Bytes at the end of a text that begin a character and do not complete it: 0 to 3.
std::size_t incomplete_bytes(std::string_view text) {
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if ((byte & 0xc0U) != 0x80U) {  // not the continuation of a character
      const std::size_t length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
      return length > back ? back : 0;
    }
  }
  return 0;
}

class WriteBuffer final : public std::streambuf {
 public:
  WriteBuffer(Channel channel, ChannelWriter::Items items) : channel_(std::move(channel)), items_(items) { start(0); }

 protected:
  int_type overflow(int_type c) override {
    send_complete();
    if (!traits_type::eq_int_type(c, traits_type::eof())) {
      sputc(traits_type::to_char_type(c));
    }
    return traits_type::not_eof(c);
  }

  int sync() override {
    const std::string text(pbase(), pptr());
    start(0);
    if (!text.empty()) {
      send(text);
    }
    return 0;
  }

 private:
  void send(const std::string& text) {
    channel_.send(items_ == ChannelWriter::Items::kBytes ? Value(Bytes(text)) : Value(text));
  }

  void start(std::size_t kept) {
    setp(buffer_.data(), buffer_.data() + buffer_.size());
    pbump(static_cast<int>(kept));
  }

  // All but the beginning of a character whose rest is still to come.
  void send_complete() {
    const std::string_view text(pbase(), static_cast<std::size_t>(pptr() - pbase()));
    const std::size_t rest = items_ == ChannelWriter::Items::kBytes ? 0 : incomplete_bytes(text);
    const std::string complete(text.substr(0, text.size() - rest));
    std::copy(text.end() - static_cast<std::ptrdiff_t>(rest), text.end(), buffer_.begin());
    start(rest);
    send(complete);
  }

  Channel channel_;
  const ChannelWriter::Items items_;
  std::array<char, 4096> buffer_{};
};

class ReadBuffer final : public std::streambuf {
 public:
  explicit ReadBuffer(Channel channel) : channel_(std::move(channel)) {}

 protected:
  int_type underflow() override {
    do {
      const std::optional<Value> item = channel_.next();
      if (!item) {
        return traits_type::eof();
      }
      const auto* bytes = item->get_if<Bytes>();
      text_ = bytes != nullptr ? std::string(bytes->view()) : item->as<std::string>();
    } while (text_.empty());
    setg(text_.data(), text_.data(), text_.data() + text_.size());
    return traits_type::to_int_type(text_.front());
  }

 private:
  Channel channel_;
  std::string text_;
};

}  // namespace

ChannelWriter::ChannelWriter(Channel channel, Items items)
    : std::ostream(nullptr), buffer_(std::make_unique<WriteBuffer>(std::move(channel), items)) {
  rdbuf(buffer_.get());
}

ChannelWriter::~ChannelWriter() {
  exceptions(std::ios::goodbit);
  flush();
}

ChannelReader::ChannelReader(Channel channel)
    : std::istream(nullptr), buffer_(std::make_unique<ReadBuffer>(std::move(channel))) {
  rdbuf(buffer_.get());
}

ChannelReader::~ChannelReader() = default;

}  // namespace execnet
