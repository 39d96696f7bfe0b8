/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Source translation where packets leave the node: masquerade for pods, and the
 * node's address for clients from outside whose service has its backend on
 * another node. */
#pragma once

/* Translated ports are the upper half of all, above the NodePorts. */
#define NAT_PORT_MIN 0x8000
#define NAT_PORT_MASK 0x7fff
#define NAT_TRIES 32

INLINE bool is_nat_port(__u8 proto, __be16 port)
{
	return proto == PROTO_ICMP || bpf_ntohs(port) >= NAT_PORT_MIN;
}

/* Takes a port of local for the tuple's source: its own if that is free, or
 * already its, else one by chance. Returns the port, or the reason.
 * The source must find its way back by the port alone, hence NOEXIST. */
__noinline int nat_claim_for(const struct tuple *tuple, __be32 local, __u32 flags)
{
	struct nat_key key = {};
	struct nat value = {
		.flags = flags,
		.seen = ticks(),
		.born = ticks(),
	};
	__u32 draw = bpf_get_prandom_u32();

	if (!tuple)
		return DROP(INVALID);
	key.remote = tuple->daddr;
	key.local = local;
	key.remote_port = tuple->dport;
	key.local_port = tuple->sport;
	key.proto = tuple->proto;
	value.addr = tuple->saddr;
	value.port = tuple->sport;
	if (bpf_ntohs(key.local_port) < NAT_PORT_MIN && !(flags & NAT_HOST))
		key.local_port = bpf_htons(NAT_PORT_MIN | (draw & NAT_PORT_MASK));
#pragma clang loop unroll(disable)
	for (__u32 try = 1; try <= NAT_TRIES; try++) {
		struct nat *there;

		if (!bpf_map_update_elem(&nats, &key, &value, BPF_NOEXIST))
			return key.local_port;
		there = bpf_map_lookup_elem(&nats, &key);
		if (there && there->addr == value.addr && there->port == value.port)
			return key.local_port;
		key.local_port = bpf_htons(NAT_PORT_MIN | ((draw + try) & NAT_PORT_MASK));
	}
	return DROP(NO_NAT_PORT);
}

INLINE int nat_claim(const struct tuple *tuple, __be32 local, __u32 flags)
{
	struct tuple by = *tuple;

	return nat_claim_for(&by, local, flags);
}

/* The entry of the way back, kept alive by the way out: at most once a second,
 * and made again should it have been pushed out. */
INLINE void nat_refresh(const struct tuple *tuple, struct flow *flow)
{
	struct nat_key key = {
		.remote = tuple->daddr,
		.local = flow->nat_addr,
		.remote_port = tuple->dport,
		.local_port = flow->nat_port,
		.proto = tuple->proto,
	};
	__u32 now = ticks();
	struct nat *nat;

	if (flow->nat_seen == now)
		return;
	flow->nat_seen = now;
	nat = bpf_map_lookup_elem(&nats, &key);
	if (nat) {
		nat->seen = now;
	} else {
		struct nat value = {
			.addr = tuple->saddr,
			.port = tuple->sport,
			.flags = flow->nat_addr == tuple->saddr ? NAT_HOST : 0,
			.seen = now,
			.born = flow->born,
		};

		bpf_map_update_elem(&nats, &key, &value, BPF_NOEXIST);
	}
}

enum decision {
	DECISION_KEEP,      /* the source stays */
	DECISION_RESERVE,   /* it is the node's own; keep its port from the others */
	DECISION_TRANSLATE,
};

INLINE bool in_nonmasquerade(__be32 addr)
{
	struct prefix key = { .bits = 32, .addr = addr };

	return bpf_map_lookup_elem(&nonmasquerade, &key);
}

INLINE bool is_remote_node(__be32 addr)
{
	__u32 identity = identity_of(addr);

	return identity == IDENTITY_REMOTE_NODE || identity == IDENTITY_APISERVER;
}

INLINE bool is_pod_here(__be32 addr)
{
	__u32 id = endpoint_id(addr);
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &id);

	return endpoint && endpoint->addr == addr && !(endpoint->flags & ENDPOINT_HOST);
}

/* By the tunnel the node is known as its pods' gateway, and pods as themselves. */
INLINE bool is_overlay(const struct device *device)
{
	return is_local_pod(device->addr);
}

/* In the order that Cilium decides in. That it is a reply, which ends the
 * question too, the flow has told before. */
INLINE enum decision nat_decide(const struct tuple *tuple, const struct flow *flow,
				const struct device *device)
{
	if (tuple->saddr == device->addr)
		return is_nat_port(tuple->proto, tuple->sport) ? DECISION_RESERVE : DECISION_KEEP;
	if (flow && flow->flags & FLOW_EXTERNAL)
		return DECISION_TRANSLATE;
	if (!config.masquerade || is_native(tuple->daddr) || is_overlay(device))
		return DECISION_KEEP;
	if (!is_pod_here(tuple->saddr)) /* the node, or somebody who is routed */
		return DECISION_KEEP;
	if (in_nonmasquerade(tuple->daddr))
		return DECISION_KEEP;
	/* With a tunnel nobody but the nodes at its ends need know of pods. */
	if (is_remote_node(tuple->daddr) && !tunnel_port())
		return DECISION_KEEP;
	return DECISION_TRANSLATE;
}

/* Decides on a flow that leaves by device, and writes it down in the flow. */
INLINE int nat_assign(const struct packet *packet, struct flow *flow, const struct device *device,
		      enum decision decision)
{
	const struct tuple *tuple = &packet->tuple;
	int port;

	if (decision == DECISION_KEEP) {
		flow->flags |= FLOW_NAT_DECIDED;
		return 0;
	}
	if (tuple->proto == PROTO_ICMP && packet->icmp_type != ICMP_ECHO)
		return decision == DECISION_TRANSLATE ? DROP(NAT_PROTOCOL) : 0;
	port = nat_claim(tuple, device->addr, decision == DECISION_RESERVE ? NAT_HOST : 0);
	if (port < 0)
		return port;
	flow->nat_addr = device->addr;
	flow->nat_port = port;
	flow->nat_seen = flow->seen;
	flow->flags |= FLOW_NAT_DECIDED;
	return 0;
}

/* To whom a packet that came to one of the node's addresses belongs in truth. */
INLINE struct nat *nat_lookup(const struct packet *packet, struct story *story)
{
	const struct tuple *tuple = &packet->tuple;
	struct nat_key key = {
		.remote = tuple->saddr,
		.local = tuple->daddr,
		.remote_port = tuple->sport,
		.local_port = tuple->dport,
		.proto = tuple->proto,
	};
	struct nat *nat;

	if (!is_nat_port(tuple->proto, tuple->dport))
		return NULL;
	nat = bpf_map_lookup_elem(&nats, &key);
	if (nat && !is_error(packet)) {
		__u32 now = ticks();

		if (nat->seen != now)
			nat->seen = now;
		story->notable = !nat->rx_flags || is_notable(packet);
		if (packet->tcp_flags & ~nat->rx_flags)
			nat->rx_flags |= packet->tcp_flags;
	}
	return nat;
}
