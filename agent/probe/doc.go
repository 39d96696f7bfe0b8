// Package probe sends packets from the network namespace of its process and
// says what became of them: ICMP echoes as ping(8), paths as tracepath(8), and
// a witness that sees the echoes of others pass by. A [Prober] sends echoes from
// pods too, and makes requests over TCP and UDP as their programs would: in the
// pod's network namespace, with the pod's resolver. All of it needs CAP_NET_RAW,
// CAP_NET_ADMIN for the larger socket buffers that many probes at once want, and
// CAP_SYS_ADMIN to enter a pod.
//
// IPv4 only, and Linux only: it lives on the kernel's error queue and on packet
// sockets.
package probe
