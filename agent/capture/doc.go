// Package capture sees the packets of a network namespace pass, on all of its
// devices at once, coming in and going out, as tcpdump(8) does on the device
// "any". One packet socket is bound to no device, so devices that come, go and
// change their names are followed.
//
// # What is seen where
//
// The kernel hands a packet to packet sockets when a device receives it, before
// tc and XDP's generic hook, and when a device sends it, after tc. So:
//
//   - What a pod sends is seen coming in at its lxc device, whatever the
//     datapath does with it then.
//   - What the datapath puts straight into a pod (redirect_peer) is not seen going
//     out of the lxc device, because it never passes it: it is seen coming in at
//     eth0 of the pod, in the pod's own namespace.
//   - What the datapath drops on the way in was seen coming in. What it drops on
//     the way out (masquerade, tc egress) was not seen going out.
//   - What it translates on the way in (a NodePort) is seen coming in as it was,
//     and going out as it became. Translation on the way out has been done.
//   - What netfilter drops in PREROUTING, FORWARD or INPUT was seen coming in; in
//     OUTPUT and POSTROUTING it is not seen going out.
//   - A connection that the socket hooks balance never bears the service's address.
//
// A packet on lo is seen once, coming in.
package capture
