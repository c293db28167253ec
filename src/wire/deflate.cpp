#include "wire/deflate.hpp"

#include <zlib.h>

#include <new>
#include <string>
#include <utility>

#include "wire/frame.hpp"

namespace execnet::wire {
namespace {

constexpr int kRaw = -MAX_WBITS;  // neither header nor checksum: ssh has its own
constexpr int kMemory = 8;        // the default

Bytef* bytes_at(const char* at) { return reinterpret_cast<Bytef*>(const_cast<char*>(at)); }
Bytef* bytes_of(std::string_view bytes) { return reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data())); }

}  // namespace

void Deflater::End::operator()(z_stream_s* stream) const {
  ::deflateEnd(stream);
  delete stream;
}

void Inflater::End::operator()(z_stream_s* stream) const {
  ::inflateEnd(stream);
  delete stream;
}

Deflater::Deflater() {
  auto stream = std::make_unique<z_stream>();
  if (::deflateInit2(stream.get(), level_, Z_DEFLATED, kRaw, kMemory, Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::bad_alloc();
  }
  stream_.reset(stream.release());
}

void Deflater::deflate(std::string_view bytes, int level, base::Buffer& unit) {
  z_stream& stream = *stream_;
  // Enough for all of it, nearly always: else another piece follows.
  std::size_t room = ::deflateBound(&stream, bytes.size()) + 16;
  const auto make_room = [&] {
    stream.next_out = bytes_at(unit.extend(room));
    stream.avail_out = static_cast<uInt>(room);
  };
  make_room();
  stream.next_in = nullptr;
  stream.avail_in = 0;
  if (level != level_ && ::deflateParams(&stream, level, Z_DEFAULT_STRATEGY) != Z_OK) {
    throw std::bad_alloc();
  }
  level_ = level;
  stream.next_in = bytes_of(bytes);
  stream.avail_in = static_cast<uInt>(bytes.size());
  while (::deflate(&stream, Z_SYNC_FLUSH) == Z_OK && stream.avail_out == 0) {
    room = bytes.size() / 8 + 64;
    make_room();
  }
  unit.truncate(unit.size() - stream.avail_out);
}

Inflater::Inflater() {
  auto stream = std::make_unique<z_stream>();
  if (::inflateInit2(stream.get(), kRaw) != Z_OK) {
    throw std::bad_alloc();
  }
  stream_.reset(stream.release());
}

void Inflater::begin(base::Buffer unit, std::size_t size) {
  unit_ = std::move(unit);
  stream_->next_in = bytes_at(unit_.data());
  stream_->avail_in = static_cast<uInt>(unit_.size());
  left_ = size;
}

std::size_t Inflater::read(std::span<char> space) {
  z_stream& stream = *stream_;
  stream.next_out = bytes_at(space.data());
  stream.avail_out = static_cast<uInt>(space.size());
  const int result = ::inflate(&stream, Z_SYNC_FLUSH);
  if (result == Z_MEM_ERROR) {
    throw std::bad_alloc();
  }
  if (result != Z_OK && result != Z_BUF_ERROR) {  // the latter: there was nothing to do
    throw ProtocolError("a DEFLATED frame cannot be inflated: " + std::string(result == Z_STREAM_END
                                                                                  ? "the stream has ended"
                                                                              : stream.msg != nullptr ? stream.msg
                                                                                                      : "bad data"));
  }
  const std::size_t count = space.size() - stream.avail_out;
  if (count > left_) {
    throw ProtocolError("a DEFLATED frame becomes more bytes than it says");
  }
  left_ -= count;
  if (count == 0 && (left_ != 0 || stream.avail_in != 0)) {
    throw ProtocolError("a DEFLATED frame becomes fewer bytes than it says");
  }
  return count;
}

}  // namespace execnet::wire
