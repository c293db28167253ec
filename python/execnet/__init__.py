"""Gateways to Python interpreters, local and over ssh, with nothing installed on the other side.

>>> import execnet
>>> gateway = execnet.makegateway("popen")
>>> gateway.remote_exec("channel.send(6 * 7)").receive()
42
"""

# Programs that have imported only `execnet` use its modules.
from execnet import gateway as gateway
from execnet import gateway_base as gateway_base
from execnet import gateway_bootstrap as gateway_bootstrap
from execnet import gateway_io as gateway_io
from execnet import xspec as xspec
from execnet._core import (
    Channel,
    ChannelClosed,
    DataFormatError,
    DumpError,
    ExecnetStateError,
    ForkedResourceError,
    Gateway,
    GatewayGone,
    HostNotFound,
    LoadError,
    RemoteError,
    TimeoutError,
    XSpec,
    __version__,
    can_send,
    dump,
    dumps,
    load,
    loads,
)
from execnet.multi import Group, MultiChannel, Partial, default_group, makegateway, set_execmodel, set_profile
from execnet.rsync import RSync

__all__ = [
    "Channel",
    "ChannelClosed",
    "DataFormatError",
    "DumpError",
    "ExecnetStateError",
    "ForkedResourceError",
    "Gateway",
    "GatewayGone",
    "Group",
    "HostNotFound",
    "LoadError",
    "MultiChannel",
    "Partial",
    "RSync",
    "RemoteError",
    "TimeoutError",
    "XSpec",
    "__version__",
    "can_send",
    "default_group",
    "dump",
    "dumps",
    "load",
    "loads",
    "makegateway",
    "set_execmodel",
    "set_profile",
]
