"""Programs that run beside gateways: servers for `socket=`."""
