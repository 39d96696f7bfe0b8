// Package bpf is the datapath of a node: eBPF programs that balance services,
// follow connections, translate addresses and deliver to pods, where Cilium has
// its own. datapath.c lists the programs, include has one header for each
// concern, and this package loads them for one node. It attaches nothing: the
// agent does.
//
// # Which program sees which packet
//
//	 pod              │ lxc…           the node's stack            eth1 │
//	                  │                                               │
//	 socket hooks     │ from_pod ───────► routing ──────► to_netdev ───┼──►
//	 connect4 …       │   │ to a pod here: redirect_peer    (egress)  │
//	                  │   ▼                                            │
//	 eth0 ◄───────────┼─ to_pod ◄─ from_host ◄─ routing ◄─ from_netdev ┼──
//	      ◄───────────┼───────────────── redirect_peer ◄───┘ (ingress) │
//
//	program       attached to                                 does
//	connect4      the node's cgroup                           frontend to backend, for TCP and connected UDP
//	sendmsg4      the same                                    the same for each datagram of other UDP
//	recvmsg4      the same                                    backend to frontend, for who is told the sender
//	getpeername4  the same                                    the same for who asks for the peer
//	from_pod      ingress of each lxc device                  source validation, balancing, pod to pod
//	to_pod        egress of each lxc device                   replies that came by the stack
//	from_host     egress of the device of the pods' route     the node's own packets to its pods
//	from_netdev   ingress of each network device              NodePort, undoing of masquerade, delivery
//	              and of the tunnel's
//	to_netdev     egress of the same                          masquerade, replies of NodePorts
//
// tc programs return -1 for what goes on: that is TCX_NEXT, and with clsact
// TC_ACT_UNSPEC, so others' programs see the packet too. They work attached
// either way. from_host belongs on the egress of the device that holds the
// gateway's address, where the route for the node's pods leads to.
//
// # The way of a packet
//
// A pod calls a service. In a cgroup with the socket hooks connect4 has put a
// backend in place of the frontend, and no packet knows of the service. Without,
// from_pod does it for each packet: the flow's entry says the backend. If that
// is a pod of this node the packet is put straight into its namespace; if not,
// the kernel routes it. The reply meets from_netdev or from_pod, is found by the
// same entry, gets the frontend as its source and is put into the client's
// namespace.
//
// A pod calls the world. The kernel routes the packet, and to_netdev decides by
// Cilium's list (nat_decide in nat.h) whether it takes the device's address; the
// flow remembers. The reply comes to the node's address, from_netdev finds whom
// it is for by the port, and delivers.
//
// Somebody outside calls a NodePort. from_netdev puts the backend in as the
// destination. A backend here gets the packet with its source untouched. For one
// elsewhere the kernel routes it out again, and to_netdev gives it this node's
// address, so that the reply comes back here: from_netdev undoes the one
// translation, to_netdev the other. So destinations change on the way in and
// sources on the way out, and what the kernel routes in between has never an
// address of its own as source, which it would refuse as martian.
//
// With a tunnel to other nodes' pods (VXLAN) the kernel's device carries packets
// and programs see them twice: on the tunnel's device as themselves, and on the
// network device as what carries them, which is nobody's flow and goes by
// untouched. By the tunnel a node is known as its pods' gateway: that is the
// address of its device in the map devices, what the node's own packets bear, and
// what a client from outside gets whose backend is at the other end. Nothing is
// masqueraded there; on the network devices what a pod sends to another node is,
// for between nodes nobody knows of pods, as Cilium does it. What comes by the
// tunnel from this node's own pods is dropped as false (132). Which port it is
// stands in settings, so that a node changes over without loading anything.
//
// An ICMP error goes the way of a reply to the packet that it quotes: its tuple
// is the quoted one turned round, and all that holds for packets holds for it,
// but that it begins and touches no flow. Later fragments find their ports in a
// map; one that comes before its first is dropped as Cilium does (175), but for
// those to the node itself.
//
// A packet is handed back to the stack unchanged in hop count where its TTL ends
// here: the stack answers, as a router must, and the answer is translated like
// any other error.
//
// # What the maps hold, and why so
//
//	frontends       address, port, protocol, scope → a range of slots, id, flags
//	slots           array: slot → backend id
//	backends        array: id → address, port, state
//	maglev          frontend id → table of backend ids
//	affinities      client and frontend id → the backend it had
//	affinity_match  backend and frontend id: whom an affinity may lead to
//	endpoints       array: id → pod, its device and addresses; or one of the node's addresses
//	addresses       address → endpoint id
//	ipcache         prefix → identity
//	nonmasquerade   prefixes to which pods keep their address
//	devices         network device → the address that stands for pods there
//	flows           client address, port, protocol → all of a connection, both ways
//	more_flows      the same and the server → a second connection of that client's port
//	recents         per CPU array: copies of the flows seen last
//	epochs          array: hash of a client → how many flows were entered
//	handover        until when programs with other maps of flows take their place
//	nats            translated source, as replies see it → the true one
//	fragments       datagram → ports
//	sockets         socket and backend → the frontend it called
//	metrics         per CPU array: reason and direction → packets, bytes
//	settings        who listens, and the tunnel's port
//	events          ring buffer: drops and traces
//
// What is numbered densely is in arrays: a lookup there is a memory access. An
// update of a service writes backends, then a range of slots that nobody uses,
// then the frontend, in one step from the old range to the new; the old range
// can be used again once no program that began before is still running, and a
// slot names its owner in case one is. There is no map for reverse NAT, as
// Cilium has one: a flow holds the address that its client called. Cilium's view
// of these maps is made by who shows it.
//
// A flow has one entry where Cilium has two or three. Its key is the client
// alone, for the client is what request and reply have in common whatever is
// translated; who it talks to is in the value, and compared. A client that uses
// one port towards two servers at one time has its second flow in more_flows, at
// the price of a second lookup. UDP that was under way to an address
// before that became a service stays as it is until it pauses for AgeAny: who
// adds a frontend may delete such flows.
//
// A packet in the middle of a flow needs no hash at all: each CPU keeps copies of
// the flows that it saw last, in an array of cache lines. A copy holds for one
// tick and as long as nobody enters a flow of that client, which epochs tell; so
// the entry itself is looked up and stamped once a tick, and what the agent
// deletes is forgotten within one. This makes an established packet a third
// cheaper. (recent in maps.h, flow_find_common in flow.h.)
//
// flows, more_flows, nats, affinities, fragments and sockets are LRU maps: full, they forget
// what was not used for longest, and traffic goes on. flows and nats keep an LRU
// list per CPU (BPF_F_NO_COMMON_LRU), which makes new flows cheaper by a
// quarter. A NAT entry that was pushed out is made again by the next packet on
// the way out, at most a second later. The agent should delete flows by their
// age (Clock, AgeTCP and its like), and a NAT entry when neither it nor its
// flow was seen for as long.
//
// # What the verifier looks at
//
// It follows what it knows of a pointer along each way that leads on, so a parser
// that hands pointers on is looked at once for each of its ways and each way of
// what comes after. Off the lanes of established packets, parsing and rewriting
// are functions of their own, with facts and offsets between them (struct packet),
// and are looked at once. That is a sixth of the work, and of the time to load a
// node's programs. (TestVerifierCost)
//
// # Checksums
//
// Every change is incremental (RFC 1624). Headers whose sum stays the same, the
// IPv4 header and all of ICMP, are written directly. For TCP and UDP that is
// right where nothing but the packet holds its checksum; where the device is to
// finish it only the pseudo header counts; and where the kernel keeps a sum of
// the packet besides, helpers must do it. The programs read which it is from the
// kernel's own structure (Features.KernelContext), or always use helpers.
//
// # Services without backends
//
// Who calls one is told that nobody listens: ICMP destination unreachable, port
// unreachable, from the address that he called. The packet itself is made into
// that answer and goes back by the device that it came from (refuse.h). It counts
// as dropped, for reason 158.
//
// # Counting and dropping
//
// Each packet is counted once for each program that sees it: for why it was
// dropped (DatapathReason, with Cilium's numbers) or as forwarded. The socket
// hooks count refusals only. Events are written while settings.listen says so:
// with who sent a packet as it came and to whom it goes as it leaves, and at
// LISTEN_FLOWS the first packet each way and the last ones of a flow. A flow is
// new until it is answered.
package bpf

//go:generate go tool bpf2go -tags linux -target bpfel -type reason -type direction -type point -type scope -type frontend_flag -type algorithm -type backend_state -type endpoint_flag -type identity -type flow_flag -type nat_flag -type listen -type event_type -type event -type flow_state Datapath datapath.c -- -O2 -g -Wall -Wextra -Werror -mcpu=v3 -I include
