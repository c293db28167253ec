// execnet: gateways to Python interpreters, channels to the code that runs there, groups that own both.
//
//   execnet::Group group{"popen", "popen"};
//   auto channels = group.remote_exec("channel.send(channel.receive() + 1)");
//   channels.send_each(41);
//   for (int answer : channels.receive_each<int>()) std::cout << answer << '\n';
#pragma once

#include <execnet/channel.hpp>
#include <execnet/dump.hpp>
#include <execnet/error.hpp>
#include <execnet/gateway.hpp>
#include <execnet/group.hpp>
#include <execnet/multichannel.hpp>
#include <execnet/remote_info.hpp>
#include <execnet/rsync.hpp>
#include <execnet/source.hpp>
#include <execnet/stream.hpp>
#include <execnet/value.hpp>
#include <execnet/version.hpp>
#include <execnet/xspec.hpp>
