// Package probe sends packets from the network namespace of its process and
// says what became of them: ICMP echoes as ping(8), paths as tracepath(8), and
// a witness that sees the echoes of others pass by. It needs CAP_NET_RAW, and
// CAP_NET_ADMIN for the larger socket buffers that many probes at once want.
//
// IPv4 only, and Linux only: it lives on the kernel's error queue and on packet
// sockets.
package probe
