// How the streams of `socket` gateways come about: from a server that runs already, or from one that
// another gateway of this machine is told to make. Any thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include <execnet/xspec.hpp>

#include "base/buffer.hpp"
#include "base/fd.hpp"
#include "base/wait.hpp"
#include "process/process.hpp"
#include "transport/transport.hpp"

namespace execnet::core {

class GatewayEnd;

struct SocketStart {
  transport::Launch launch;
  base::Fd stream;
  std::shared_ptr<process::Process> process;  // what was started for it, if it may be killed; else null
  base::Buffer first;  // what is to be sent before anything else, and for a server instead of HELLO
};

// `hello` is the coordinator's HELLO frame. Throws HostNotFound.
SocketStart connect_to_server(const XSpec& spec, std::string_view hello, const base::Wait& wait);

// Has `host` listen on the loopback device (worker/socket_listener.py) for one connection, from the address of a socket
// of this process and with a secret that only this process knows, and start a worker on it. Throws HostNotFound.
SocketStart install_server(const XSpec& spec, GatewayEnd& host, const base::Wait& wait);

// Processes at the same place reach each other over the loopback device, and know each other by pid.
// Empty if that cannot be found out.
std::string this_place();

}  // namespace execnet::core
