// The errors of the library. What a caller can do about a failure decides its type; the text says
// what failed, where, and what to do.
#pragma once

#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include <execnet/export.hpp>

namespace execnet {

struct Partial;

// Base of everything the library throws, except std::bad_alloc and std::system_error.
class EXECNET_EXPORT Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;

  // What a call for several channels or gateways had got when it failed with this (multichannel.hpp); null if another
  // call has failed.
  //   catch (const execnet::GatewayGone& error) { use(error.partial()->received); }
  [[nodiscard]] const std::shared_ptr<const Partial>& partial() const { return partial_; }
  void set_partial(std::shared_ptr<const Partial> partial) { partial_ = std::move(partial); }

 private:
  std::shared_ptr<const Partial> partial_;
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

// The gateway or the group belongs to the process that this one was forked from. Make one here.
class EXECNET_EXPORT ForkedResourceError : public GatewayGone {
 public:
  using GatewayGone::GatewayGone;
};

// A call that is not allowed in this state: a second callback, receive() beside a callback, or code on a worker that
// closes the channel it runs with. To try again does not help; the program is to be changed.
class EXECNET_EXPORT StateError : public Error {
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
