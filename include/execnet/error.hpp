// The errors of the library. What a caller can do about a failure decides its type; the text says
// what failed, where, and what to do.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>

#include <execnet/export.hpp>

namespace execnet {

// Base of everything the library throws, except std::bad_alloc and std::system_error.
class EXECNET_EXPORT Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A specification, identifier or argument is wrong. Thrown before anything is started.
class EXECNET_EXPORT SpecError : public Error {
 public:
  using Error::Error;
};

// The group has no gateway of that id or index.
class EXECNET_EXPORT UnknownGateway : public Error {
 public:
  using Error::Error;
};

// The code on the other side raised. what() is its formatted traceback.
class EXECNET_EXPORT RemoteError : public Error {
 public:
  using Error::Error;
};

// Nothing came within the given time.
class EXECNET_EXPORT TimeoutError : public Error {
 public:
  using Error::Error;
};

// A value does not fit the dump format, or bytes are not in it.
class EXECNET_EXPORT DataFormatError : public Error {
 public:
  using Error::Error;
};

// The value cannot be dumped; the text carries the path to the item, as in "at [3]['status']".
class EXECNET_EXPORT DumpError : public DataFormatError {
 public:
  using DataFormatError::DataFormatError;
};

// The bytes cannot be loaded.
class EXECNET_EXPORT LoadError : public DataFormatError {
 public:
  LoadError(const std::string& what, std::size_t offset)
      : DataFormatError(what + " at byte " + std::to_string(offset)), offset_(offset) {}
  // Where in the input, in bytes.
  [[nodiscard]] std::size_t offset() const { return offset_; }

 private:
  std::size_t offset_;
};

// There is no usable interpreter at the other end of a specification. The text has the command that was
// run, its exit status and the last lines of its stderr.
class EXECNET_EXPORT HostNotFound : public Error {
 public:
  using Error::Error;
};

// The other side is gone: exit status or signal, last lines of stderr.
class EXECNET_EXPORT GatewayGone : public Error {
 public:
  using Error::Error;
};

// The channel is closed on this side, or the gateway was told to exit: nothing can be sent.
class EXECNET_EXPORT ChannelClosed : public Error {
 public:
  using Error::Error;
};

// The other side has closed the channel, and everything it had sent was received.
class EXECNET_EXPORT EndOfChannel : public Error {
 public:
  using Error::Error;
};

}  // namespace execnet
