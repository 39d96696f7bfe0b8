/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Every map and what it holds, defined here and nowhere else: Go gets these
 * types from bpf2go. Addresses and ports are in network byte order throughout.
 *
 * Two rules keep the hot path short. What has a dense number (backend, slot,
 * endpoint) stands in an array, where a lookup costs a nanosecond instead of a
 * hash's twenty. And what is read together stands together: one flow entry
 * holds both directions of a connection.
 *
 * All sizes here are placeholders; the loader sets them. */
#pragma once

/* ---- services, written by the agent ---------------------------------- */

/* A frontend with different backends for callers in the cluster and outside has
 * two entries, and FRONTEND_TWO_SCOPES on the external one. */
enum scope {
	SCOPE_EXTERNAL = 0,
	SCOPE_INTERNAL = 1,
};

struct frontend_key {
	__be32 addr; /* 0 with a NodePort: any address of any node */
	__be16 port;
	__u8 proto;
	__u8 scope;
};

/* As in Cilium's flags (low byte) and flags2 (high byte). */
enum frontend_flag {
	FRONTEND_EXTERNAL_IP = 1 << 0,
	FRONTEND_NODEPORT = 1 << 1,
	FRONTEND_EXT_LOCAL = 1 << 2,
	FRONTEND_HOSTPORT = 1 << 3,
	FRONTEND_AFFINITY = 1 << 4,
	FRONTEND_LOADBALANCER = 1 << 5,
	FRONTEND_ROUTABLE = 1 << 6,
	FRONTEND_SOURCE_RANGE = 1 << 7,
	FRONTEND_INT_LOCAL = 1 << 12,
	FRONTEND_TWO_SCOPES = 1 << 13,
};

enum algorithm {
	ALGORITHM_RANDOM = 1,
	ALGORITHM_MAGLEV = 2,
};

/* Slots first .. first+count-1 hold the usable backends, the qcount after them
 * those that take no new flows. One write of this entry moves a service from
 * one range of slots to another, so no lookup sees half of a change. */
struct frontend {
	__u32 first;
	__u16 count;
	__u16 qcount;
	__u16 id; /* of the service's frontend: Cilium's reverse NAT id, never 0 */
	__u16 flags;
	__u32 affinity; /* ticks */
	__u8 algorithm;
	__u8 pad[3];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct frontend_key);
	__type(value, struct frontend);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} frontends SEC(".maps");

/* service repeats the owner: a reader that still holds a frontend whose range
 * has been given to another service notices, and picks nothing. */
struct slot {
	__u32 backend;
	__u16 service;
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

enum backend_state {
	BACKEND_ACTIVE = 0,
	BACKEND_TERMINATING = 1,
	BACKEND_QUARANTINED = 2,
	BACKEND_MAINTENANCE = 3,
};

/* Indexed by backend id, from 1. addr 0 is a backend that is gone: flows to it
 * are balanced anew. In any other state they go on. */
struct backend {
	__be32 addr;
	__be16 port;
	__u8 proto;
	__u8 state;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

/* Frontend id -> table of config.maglev_size backend ids. */
struct maglev_table {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct maglev_table);
} maglev SEC(".maps");

struct affinity_key {
	__u64 client; /* address, or netns cookie where the socket was balanced */
	__u16 service;
	__u8 cookie; /* whether client is one */
	__u8 pad[5];
};

struct affinity {
	__u32 backend;
	__u32 seen; /* ticks, see clock.h */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct affinity_key);
	__type(value, struct affinity);
} affinities SEC(".maps");

/* Which backends an affinity of a service may still lead to. */
struct affinity_match_key {
	__u32 backend;
	__u16 service;
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct affinity_match_key);
	__type(value, __u8);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} affinity_match SEC(".maps");

/* ---- addresses, written by the agent ---------------------------------- */

enum endpoint_flag {
	ENDPOINT_HOST = 1 << 0, /* an address of the node itself */
};

/* Indexed by endpoint id, from 1; addr 0 is a free entry. */
struct endpoint {
	__u32 ifindex; /* of the node's end of the veth pair */
	__be32 addr;
	__u8 mac[6];      /* of the pod */
	__u8 host_mac[6]; /* of the node's end */
	__u32 identity;
	__u32 flags;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

/* Address -> endpoint id, for pods and the node's own addresses. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __be32);
	__type(value, __u32);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} addresses SEC(".maps");

struct prefix {
	__u32 bits;
	__be32 addr;
};

enum identity {
	IDENTITY_HOST = 1,
	IDENTITY_WORLD = 2,
	IDENTITY_REMOTE_NODE = 6,
	IDENTITY_APISERVER = 7,
};

struct remote {
	__u32 identity;
	__be32 node; /* the address of the node that it is on, 0 if none */
	__u32 flags; /* Cilium's, for show */
};

/* Who is where in the cluster: prefix -> identity. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__type(key, struct prefix);
	__type(value, struct remote);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} ipcache SEC(".maps");

/* Prefixes to which pods keep their address, besides the native CIDR. */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__type(key, struct prefix);
	__type(value, __u8);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} nonmasquerade SEC(".maps");

/* Network devices by ifindex: the address that stands for pods there. A device
 * without an entry is left alone. */
struct device {
	__be32 addr;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct device);
	__uint(map_flags, BPF_F_NO_PREALLOC);
} devices SEC(".maps");

/* ---- state, written by the datapath ----------------------------------- */

/* A flow is found by its client's address and port alone: the request has them
 * as source and the reply as destination, so one entry serves both ways,
 * whatever the service in between. Eight bytes are hashed in half the time of
 * sixteen. */
struct flow_key {
	__be32 client;
	__be16 client_port;
	__u8 proto;
	__u8 pad;
};

/* A client that talks to two servers from one port at one time needs more: its
 * second flow stands in a map of its own, once for each server address that it
 * is known by. */
struct flow_full_key {
	struct flow_key client;
	__be32 peer;
	__be16 peer_port;
	__u16 pad;
};

enum flow_flag {
	FLOW_EXTERNAL = 1 << 0,     /* came in by a network device to a service */
	FLOW_LOOPBACK = 1 << 1,     /* a pod that reached itself by a service */
	FLOW_NAT_DECIDED = 1 << 2,  /* nat_addr holds, also when it is 0 */
	FLOW_SEEN_NON_SYN = 1 << 3, /* TCP that got past its SYN, or was begun before us */
};

/* What the client dialed is the frontend; who answers is the backend. They are
 * the same where no service is in between. */
struct flow {
	__be32 frontend;
	__be32 backend;
	__be16 frontend_port;
	__be16 backend_port;
	__be32 nat_addr; /* the client as the backend sees it, 0 if unchanged */
	__be16 nat_port;
	__u16 service; /* frontend id, 0 without a service */
	__u32 backend_id;
	__u32 seen; /* ticks, see clock.h */
	__u32 born;
	__u32 nat_seen;   /* when the NAT entry was last known to be there */
	__u16 client_ep;  /* endpoint ids, 0 if not of this node */
	__u16 backend_ep;
	__u16 flags;
	__u8 tx_flags; /* TCP flags seen from the client, and from the backend; or SEEN */
	__u8 rx_flags;
	__u32 identity; /* of the client */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct flow_key);
	__type(value, struct flow);
	__uint(map_flags, BPF_F_NO_COMMON_LRU);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct flow_full_key);
	__type(value, struct flow);
	__uint(map_flags, BPF_F_NO_COMMON_LRU);
} more_flows SEC(".maps");

/* What this CPU saw last of a flow, in one cache line: to look into flows costs
 * more than all else together that an established packet needs. A copy holds
 * for the tick that it was made in, so each flow is looked up and touched once a
 * second still, and no longer than its epoch stays the same. */
#define RECENT_BITS 8

struct recent {
	struct flow_key key;
	__u32 epoch;
	__u32 pad;
	struct flow flow;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1 << RECENT_BITS);
	__type(key, __u32);
	__type(value, struct recent);
} recents SEC(".maps");

/* Counts the flows that were entered, by a hash of their client: what any CPU
 * enters makes the copies of all others void. */
#define EPOCH_BITS 12

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << EPOCH_BITS);
	__type(key, __u32);
	__type(value, __u32);
} epochs SEC(".maps");

/* The tick until which programs are being exchanged for others that keep flows
 * and translations in other maps; 0 at all other times. A tick, so that it ends by
 * itself should the agent die. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} handover SEC(".maps");

/* A translated source, as its replies come in. The way out is in the flow. */
struct nat_key {
	__be32 remote;
	__be32 local;
	__be16 remote_port;
	__be16 local_port;
	__u8 proto;
	__u8 pad[3];
};

enum nat_flag {
	NAT_HOST = 1 << 0, /* the node's own connection, kept from being taken */
};

struct nat {
	__be32 addr; /* the client */
	__be16 port;
	__u8 flags;
	__u8 rx_flags; /* TCP flags seen in replies; else SEEN */
	__u32 seen;
	__u32 born;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct nat_key);
	__type(value, struct nat);
	__uint(map_flags, BPF_F_NO_COMMON_LRU);
} nats SEC(".maps");

/* The ports of a fragmented datagram, which only its first fragment has. */
struct fragment_key {
	__be32 saddr;
	__be32 daddr;
	__be16 id;
	__u8 proto;
	__u8 pad;
};

struct fragment {
	__be16 sport;
	__be16 dport;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct fragment_key);
	__type(value, struct fragment);
} fragments SEC(".maps");

/* What a socket thinks it talks to, by what it talks to in truth. */
struct socket_key {
	__u64 cookie;
	__be32 addr;
	__be16 port;
	__u16 pad;
};

struct socket_peer {
	__be32 addr;
	__be16 port;
	__u16 service;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct socket_key);
	__type(value, struct socket_peer);
} sockets SEC(".maps");

/* ---- what it tells ---------------------------------------------------- */

struct metric {
	__u64 packets;
	__u64 bytes;
};

/* Indexed by reason * 4 + direction. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASON_COUNT * 4);
	__type(key, __u32);
	__type(value, struct metric);
} metrics SEC(".maps");

/* How much is written to the ring buffer: nothing while nobody listens. */
enum listen {
	LISTEN_NOBODY = 0,
	LISTEN_DROPS = 1,
	LISTEN_FLOWS = 2, /* drops, and the first each way and the last packets of each flow */
	LISTEN_ALL = 3,
};

/* What changes without another load, so that a node gets into a tunnel and out
 * of it in a moment. */
struct setting {
	__u32 listen;
	__be16 tunnel_port; /* UDP, by which nodes carry each other's pods' packets; 0 without a tunnel */
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct setting);
} settings SEC(".maps");

enum event_type {
	EVENT_DROP = 1,  /* Cilium's message types */
	EVENT_TRACE = 4,
};

enum flow_state {
	STATE_NEW = 0,
	STATE_ESTABLISHED = 1,
	STATE_REPLY = 2,
	STATE_RELATED = 3,
	STATE_UNKNOWN = 4,
};

#define EVENT_HEAD 96

struct event {
	__u64 time; /* nanoseconds of CLOCK_MONOTONIC */
	__u32 ifindex;
	__u32 length; /* of the whole packet */
	__u32 hash;   /* of the flow, as the kernel has it */
	__u32 source_identity;      /* of orig_addr; of whose device it is if that is false */
	__u32 destination_identity; /* of the destination in head */
	__be32 orig_addr;           /* the source before translation */
	__u16 endpoint;   /* that it goes to, else that it came from, else 0 */
	__u8 type;
	__u8 reason; /* why dropped, or the point where it was seen */
	__u8 state;
	__u8 direction;
	__u8 captured;
	__u8 notable; /* told at LISTEN_FLOWS too */
	__u8 head[EVENT_HEAD]; /* the packet from its Ethernet header on, as it leaves */
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1);
} events SEC(".maps");

/* What no map and no function names is not in the object's BTF, from which Go
 * learns of it. The variable is dropped when the object is loaded. */
struct vocabulary {
	enum reason reason;
	enum direction direction;
	enum point point;
	enum scope scope;
	enum frontend_flag frontend_flag;
	enum algorithm algorithm;
	enum backend_state backend_state;
	enum endpoint_flag endpoint_flag;
	enum identity identity;
	enum flow_flag flow_flag;
	enum nat_flag nat_flag;
	enum listen listen;
	enum event_type event_type;
	enum flow_state flow_state;
	struct event event;
};

const struct vocabulary *vocabulary __attribute__((unused));
