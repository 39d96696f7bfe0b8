/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Connection tracking: one entry for both ways of a flow (struct flow_key says
 * how it is found). */
#pragma once

/* Before or behind the translation of the destination: a request is known by
 * the frontend where it comes in, and by the backend where it goes out. */
enum side {
	SIDE_FRONTEND,
	SIDE_BACKEND,
};

enum way {
	WAY_NONE,
	WAY_REQUEST,
	WAY_REPLY,
};

struct found {
	struct flow *flow;
	enum way way;
	bool vacant; /* the client's place is free: nothing more need be asked */
};

INLINE bool flow_is(const struct flow *flow, __be32 peer, __be16 port, enum side side)
{
	if (side == SIDE_FRONTEND)
		return flow->frontend == peer && flow->frontend_port == port;
	return flow->backend == peer && flow->backend_port == port;
}

/* A SYN without ACK begins a flow and is never a reply. */
INLINE bool is_opening(const struct packet *packet)
{
	return !is_error(packet) && !is_headless(packet) && packet->tuple.proto == PROTO_TCP &&
	       (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* A key is hashed by words of 32 bits and compared by 64, and a load that must
 * gather smaller stores stalls for as long as a hash takes: so write it whole. */
INLINE void flow_key(struct flow_key *key, __be32 client, __be16 client_port, __u8 proto)
{
	__u64 *words = (void *)key;

	words[0] = client;
	words[1] = client_port | (__u64)proto << 32;
}

INLINE void flow_key_peer(struct flow_key *key, __be32 peer, __be16 peer_port)
{
	__u64 *words = (void *)key;

	words[0] |= (__u64)peer << 32;
	words[1] |= (__u64)peer_port << 16;
}

INLINE struct flow *flow_lookup(struct flow_key *key, __be32 peer, __be16 port,
				enum side side, bool opening, bool *vacant)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);

	*vacant = !flow;

	if (flow && flow_is(flow, peer, port, side))
		return flow;
	/* Opening a flow where nothing is known of the client there is nothing
	 * to be found under the full key either, or only what is forgotten. */
	if (!flow && opening)
		return NULL;
	flow_key_peer(key, peer, port);
	flow = bpf_map_lookup_elem(&flows, key);
	if (flow && flow_is(flow, peer, port, side))
		return flow;
	return NULL;
}

INLINE struct flow *flow_request(const struct packet *packet, enum side side, bool *vacant)
{
	const struct tuple *tuple = &packet->tuple;
	struct flow_key key;

	flow_key(&key, tuple->saddr, tuple->sport, tuple->proto);
	return flow_lookup(&key, tuple->daddr, tuple->dport, side, is_opening(packet), vacant);
}

/* client is the reply's destination, but for a pod that answers itself. */
INLINE struct flow *flow_reply(const struct packet *packet, __be32 client)
{
	const struct tuple *tuple = &packet->tuple;
	struct flow_key key;
	bool vacant;

	flow_key(&key, client, tuple->dport, tuple->proto);
	return flow_lookup(&key, tuple->saddr, tuple->sport, SIDE_BACKEND, false, &vacant);
}

/* Which way to look first. It is only a guess where the flags do not tell, and
 * saves a lookup when it is right: clients have the high ports. */
INLINE bool looks_like_reply(const struct packet *packet)
{
	return bpf_ntohs(packet->tuple.sport) < bpf_ntohs(packet->tuple.dport);
}

/* The one lookup that finds nearly all of what goes on. */
INLINE struct found flow_find_common(const struct packet *packet, enum side side)
{
	const struct tuple *tuple = &packet->tuple;
	struct found found = {};
	struct flow_key key;

	if (looks_like_reply(packet)) {
		flow_key(&key, tuple->daddr, tuple->dport, tuple->proto);
		found.flow = bpf_map_lookup_elem(&flows, &key);
		if (found.flow && flow_is(found.flow, tuple->saddr, tuple->sport, SIDE_BACKEND))
			found.way = WAY_REPLY;
	} else {
		flow_key(&key, tuple->saddr, tuple->sport, tuple->proto);
		found.flow = bpf_map_lookup_elem(&flows, &key);
		if (found.flow && flow_is(found.flow, tuple->daddr, tuple->dport, side))
			found.way = WAY_REQUEST;
	}
	return found;
}

/* Every place where a flow can be, in the order of the guess. */
INLINE struct found flow_find(const struct packet *packet, enum side side, __be32 client)
{
	struct found found = {};
	bool opening = is_opening(packet), vacant = false;
	bool reply = !opening && looks_like_reply(packet);

	/* Two turns at most, as a loop so that the code is there once. */
#pragma clang loop unroll(disable)
	for (int turn = 0; turn < 2; turn++, reply = !reply) {
		if (reply) {
			found.flow = flow_reply(packet, client);
			found.way = WAY_REPLY;
		} else {
			found.flow = flow_request(packet, side, &vacant);
			found.way = WAY_REQUEST;
		}
		if (found.flow)
			return found;
		if (opening)
			break;
	}
	found.way = WAY_NONE;
	found.vacant = opening && vacant;
	return found;
}

INLINE bool flow_is_closing(const struct flow *flow)
{
	return (flow->tx_flags | flow->rx_flags) & (TCP_FIN | TCP_RST);
}

/* Whether its place may be taken by another flow of the same client: the agent
 * removes entries by the same ages. */
INLINE bool flow_is_over(const struct flow *flow, __u8 proto, __u32 now)
{
	__u32 idle = now - flow->seen;

	if (proto != PROTO_TCP)
		return idle > config.age_any;
	if (flow_is_closing(flow))
		return idle > config.age_closing || (flow->tx_flags | flow->rx_flags) & TCP_RST ||
		       (flow->tx_flags & flow->rx_flags & TCP_FIN);
	return idle > (flow->flags & FLOW_SEEN_NON_SYN ? config.age_tcp : config.age_syn);
}

/* Writes only what changes, so that the entry's cache line stays shared. */
INLINE void flow_touch(struct flow *flow, enum way way, const struct packet *packet,
		       struct story *story)
{
	__u32 now = ticks();
	__u8 flags;

	story->state = is_error(packet) ? STATE_RELATED
		     : way == WAY_REPLY		    ? STATE_REPLY
						    : STATE_ESTABLISHED;
	if (is_error(packet))
		return; /* an error proves nothing about a flow */
	if (flow->seen != now)
		flow->seen = now;
	if (packet->tuple.proto != PROTO_TCP)
		return;
	flags = packet->tcp_flags;
	story->notable = flags & (TCP_SYN | TCP_FIN | TCP_RST);
	if (way == WAY_REQUEST) {
		if (flags & ~flow->tx_flags)
			flow->tx_flags |= flags;
		if (!(flags & TCP_SYN) && !(flow->flags & FLOW_SEEN_NON_SYN))
			flow->flags |= FLOW_SEEN_NON_SYN;
	} else if (flags & ~flow->rx_flags) {
		flow->rx_flags |= flags;
	}
}

/* Enters a flow. Under the client alone if that place is free, over or its own;
 * else under the server's addresses, which finds it as well, by a second
 * lookup. Returns the reason if the map takes no more. */
static __noinline int flow_enter_at(const struct tuple *tuple, const struct flow *flow, bool vacant)
{
	struct flow_key key;
	struct flow *there;

	flow_key(&key, tuple->saddr, tuple->sport, tuple->proto);
	there = vacant ? NULL : bpf_map_lookup_elem(&flows, &key);
	if (there && !flow_is_over(there, key.proto, flow->seen) &&
	    !flow_is(there, flow->frontend, flow->frontend_port, SIDE_FRONTEND)) {
		flow_key_peer(&key, flow->frontend, flow->frontend_port);
		if (bpf_map_update_elem(&flows, &key, flow, BPF_ANY))
			return DROP(FLOW_FULL);
		if (flow->frontend == flow->backend && flow->frontend_port == flow->backend_port)
			return 0;
		key.peer = flow->backend;
		key.peer_port = flow->backend_port;
	}
	if (bpf_map_update_elem(&flows, &key, flow, BPF_ANY))
		return DROP(FLOW_FULL);
	return 0;
}

/* With a copy: whose address is taken is kept in memory by the compiler, and the
 * packet's tuple is asked for too often for that. */
INLINE int flow_enter(const struct tuple *tuple, const struct flow *flow, bool vacant)
{
	struct tuple at = *tuple;

	return flow_enter_at(&at, flow, vacant);
}

/* A flow as its first packet shows it, not balanced yet. */
INLINE void flow_init(struct flow *flow, const struct packet *packet)
{
	__builtin_memset(flow, 0, sizeof(*flow));
	flow->frontend = flow->backend = packet->tuple.daddr;
	flow->frontend_port = flow->backend_port = packet->tuple.dport;
	flow->seen = flow->born = ticks();
	flow->tx_flags = packet->tcp_flags;
	if (packet->tuple.proto == PROTO_TCP && !(packet->tcp_flags & TCP_SYN))
		flow->flags |= FLOW_SEEN_NON_SYN;
}

INLINE void story_begins(struct story *story)
{
	story->state = STATE_NEW;
	story->notable = 1;
}

/* An error or an answer to an echo that nobody knows of is no first packet. */
INLINE bool begins_nothing(const struct packet *packet)
{
	return is_error(packet) ||
	       (packet->tuple.proto == PROTO_ICMP && packet->icmp_type == ICMP_ECHO_REPLY);
}
