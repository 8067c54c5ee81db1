#!/bin/sh
# PID 1 of the guest. The address comes from the kernel's command line: pvm.addr=A/P pvm.gw=G pvm.mtu=M.
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev

for module in /modules/*.ko; do
    insmod "$module"
done

for word in $(cat /proc/cmdline); do
    case $word in
        pvm.addr=*) address=${word#pvm.addr=} ;;
        pvm.gw=*) gateway=${word#pvm.gw=} ;;
        pvm.mtu=*) mtu=${word#pvm.mtu=} ;;
    esac
done

# What waits at the tap while the guest changes hosts arrives in one burst: the sockets must hold it.
echo 8388608 > /proc/sys/net/core/rmem_max
echo 8388608 > /proc/sys/net/core/rmem_default
echo 10000 > /proc/sys/net/core/netdev_max_backlog
# Nobody speaks IPv6 here; without it the guest sends nothing by itself.
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6

ip link set lo up
ip link set eth0 mtu "${mtu:-1500}" up
ip address add "$address" dev eth0
[ -n "$gateway" ] && ip route add default via "$gateway"

exec /bin/guestd
