#!/bin/bash
# Run in a guest at each start, by Vagrant: network.sh ROLE ADDRESSES ROUTES
# ADDRESSES: lines "IPV4 IPV6/LENGTH", one for each interface; ROUTES: lines "NETWORK GATEWAY".
set -euo pipefail
role=$1 addresses=$2 routes=$3
if [ "$role" = gateway ]; then
    sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
fi
while read -r v4 v6; do
    device=$(ip -o -4 addr show to "$v4" | awk '{print $2; exit}')
    sysctl -qw "net.ipv6.conf.$device.accept_dad=0"
    ip -6 addr replace "$v6" dev "$device" nodad
done <<<"$addresses"
while read -r network via; do
    [ -z "$network" ] || ip route replace "$network" via "$via"
done <<<"$routes"
