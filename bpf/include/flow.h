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
	return !is_error(packet) && packet->tuple.proto == PROTO_TCP &&
	       (packet->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

/* A key is hashed by words of 32 bits and compared by 64, and a load that must
 * gather smaller stores stalls for as long as a hash takes: so write it whole. */
INLINE void flow_key(struct flow_key *key, __be32 client, __be16 client_port, __u8 proto)
{
	*(__u64 *)key = client | (__u64)(client_port | (__u32)proto << 16) << 32;
}

INLINE struct flow_full_key flow_full_key(const struct flow_key *client, __be32 peer, __be16 port)
{
	struct flow_full_key key = { .client = *client, .peer = peer, .peer_port = port };

	return key;
}

INLINE struct flow *flow_lookup(struct flow_key *key, __be32 peer, __be16 port,
				enum side side, bool opening, bool *vacant)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);
	struct flow_full_key full;

	*vacant = !flow;

	if (flow && flow_is(flow, peer, port, side))
		return flow;
	/* Opening a flow where nothing is known of the client there is nothing
	 * to be found under the full key either, or only what is forgotten. */
	if (!flow && opening)
		return NULL;
	full = flow_full_key(key, peer, port);
	flow = bpf_map_lookup_elem(&more_flows, &full);
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
INLINE struct flow *flow_reply(const struct tuple *tuple, __be32 client)
{
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

/* Where the copy of a client's flow is, and its epoch. */
INLINE __u32 client_hash(const struct flow_key *key)
{
	return (key->client ^ (key->client_port | (__u32)key->proto << 16)) * 0x9e3779b1;
}

INLINE __u32 *epoch_of(const struct flow_key *key)
{
	__u32 index = client_hash(key) >> (32 - EPOCH_BITS);

	return bpf_map_lookup_elem(&epochs, &index);
}

INLINE struct recent *recent_of(const struct flow_key *key)
{
	__u32 index = client_hash(key) >> (32 - RECENT_BITS);

	return bpf_map_lookup_elem(&recents, &index);
}

/* Whether the copy says all that the entry would: nothing is to be noted there.
 * Of every protocol packets have a flag that stands for the first one. */
INLINE bool is_current(const struct recent *recent, const struct flow_key *key, __u32 epoch,
		       enum way way, const struct packet *packet)
{
	__u8 flags = way == WAY_REQUEST ? recent->flow.tx_flags : recent->flow.rx_flags;

	return *(__u64 *)&recent->key == *(__u64 *)key && recent->epoch == epoch &&
	       recent->flow.seen == ticks() && !(packet->tcp_flags & ~flags);
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
			found.flow = flow_reply(&packet->tuple, client);
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
INLINE void flow_note(struct flow *flow, enum way way, __u8 proto, __u8 flags)
{
	__u32 now = ticks();

	if (flow->seen != now)
		flow->seen = now;
	if (way == WAY_REQUEST) {
		if (flags & ~flow->tx_flags)
			flow->tx_flags |= flags;
		if (proto == PROTO_TCP && !(flags & TCP_SYN) && !(flow->flags & FLOW_SEEN_NON_SYN))
			flow->flags |= FLOW_SEEN_NON_SYN;
	} else if (flags & ~flow->rx_flags) {
		flow->rx_flags |= flags;
	}
}

/* A flow is new until it is answered. */
INLINE __u8 flow_state(const struct flow *flow, enum way way)
{
	if (way == WAY_REPLY)
		return STATE_REPLY;
	return flow->rx_flags ? STATE_ESTABLISHED : STATE_NEW;
}

/* Whether nothing was seen that way yet. */
INLINE bool is_first(const struct flow *flow, enum way way)
{
	return !(way == WAY_REPLY ? flow->rx_flags : flow->tx_flags);
}

INLINE bool is_notable(const struct packet *packet)
{
	return packet->tuple.proto == PROTO_TCP &&
	       packet->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST);
}

/* After an entry was made, or answered for the first time: nobody's copy of
 * before is good any more. */
__noinline int flow_changed(__be32 client, __u32 client_port, __u32 proto)
{
	struct flow_key key;
	__u32 *epoch;

	flow_key(&key, client, client_port, proto);
	epoch = epoch_of(&key);
	if (epoch)
		__sync_fetch_and_add(epoch, 1);
	return 0;
}

/* tuple is the packet's as the flow knows it. */
INLINE void flow_touch(struct flow *flow, enum way way, const struct packet *packet,
		       const struct tuple *tuple, struct story *story)
{
	bool first = is_first(flow, way);

	if (is_error(packet)) {
		story->state = STATE_RELATED;
		return; /* an error proves nothing about a flow */
	}
	story->state = flow_state(flow, way);
	story->notable = first || is_notable(packet);
	flow_note(flow, way, tuple->proto, packet->tcp_flags);
	if (first && way == WAY_REPLY)
		flow_changed(flow->flags & FLOW_LOOPBACK ? tuple->saddr : tuple->daddr,
			     tuple->dport, tuple->proto);
}

/* What is asked of flow_copy besides the key, in one register. */
#define COPY_FOR(way, side, flags, port) ((way) << 28 | (side) << 24 | (flags) << 16 | (port))

/* Makes this CPU's copy of a flow anew, and marks the entry as seen if it is the
 * one with that peer. Returns 0 if there is none, or if the packet is the first
 * that way, of which there is more to be told. A function of its own, so that it
 * is verified once. */
__noinline int flow_copy(const struct flow_key *key, __u32 peer, __u32 what)
{
	enum side side = what >> 24 & 0xf;
	struct recent *recent;
	struct flow_key at;
	struct flow *flow;
	__u32 *counter, epoch;

	if (!key)
		return 0;
	at = *key;
	counter = epoch_of(&at);
	recent = recent_of(&at);
	if (!counter || !recent)
		return 0;
	/* Before the entry is read: who changes it counts afterwards. */
	epoch = *(volatile __u32 *)counter;
	flow = bpf_map_lookup_elem(&flows, &at);
	if (!flow)
		return 0;
	if (flow_is(flow, peer, what, side)) {
		if (is_first(flow, what >> 28))
			return 0;
		flow_note(flow, what >> 28, at.proto, what >> 16);
	}
	recent->key = at;
	recent->epoch = epoch;
	recent->flow = *flow;
	return 1;
}

/* A flow that goes on, as most do: a copy that is as good as its entry. */
struct ongoing {
	const struct flow *flow;
	enum way way;
};

/* One lookup at most, which finds nearly all of what goes on. */
INLINE struct ongoing flow_find_common(const struct packet *packet, enum side side, struct story *story)
{
	const struct tuple *tuple = &packet->tuple;
	struct ongoing found = {};
	bool reply = looks_like_reply(packet);
	enum way way = reply ? WAY_REPLY : WAY_REQUEST;
	__be32 peer = reply ? tuple->saddr : tuple->daddr;
	__be16 port = reply ? tuple->sport : tuple->dport;
	struct recent *recent;
	struct flow_key key;
	__u32 *epoch;

	if (reply)
		side = SIDE_BACKEND;
	flow_key(&key, reply ? tuple->daddr : tuple->saddr, reply ? tuple->dport : tuple->sport,
		 tuple->proto);
	epoch = epoch_of(&key);
	recent = recent_of(&key);
	if (!epoch || !recent)
		return found;
	if (!is_current(recent, &key, *(volatile __u32 *)epoch, way, packet) &&
	    !flow_copy(&key, peer, COPY_FOR(way, side, (__u32)packet->tcp_flags, port)))
		return found;
	found.flow = &recent->flow;
	story->state = flow_state(found.flow, way);
	if (flow_is(found.flow, peer, port, side))
		found.way = way;
	return found;
}

/* Behind another flow of the same client, by both addresses of the server. */
INLINE int flow_enter_full(const struct flow_key *client, const struct flow *flow)
{
	struct flow_full_key key = flow_full_key(client, flow->frontend, flow->frontend_port);

	if (bpf_map_update_elem(&more_flows, &key, flow, BPF_ANY))
		return DROP(FLOW_FULL);
	if (flow->frontend == flow->backend && flow->frontend_port == flow->backend_port)
		return 0;
	key = flow_full_key(client, flow->backend, flow->backend_port);
	return bpf_map_update_elem(&more_flows, &key, flow, BPF_ANY) ? DROP(FLOW_FULL) : 0;
}

/* Enters a flow. Under the client alone if that place is free, over or its own;
 * else under the server's addresses, which finds it as well, by a second
 * lookup. Returns the reason if the map takes no more. */
__noinline int flow_enter_at(const struct tuple *tuple, const struct flow *flow, bool vacant)
{
	struct flow_key key;
	struct flow *there, held;

	if (!tuple || !flow)
		return DROP(INVALID);
	held = *flow; /* Linux 6.1 lets no map take its value from a function's argument */
	flow_key(&key, tuple->saddr, tuple->sport, tuple->proto);
	there = vacant ? NULL : bpf_map_lookup_elem(&flows, &key);
	if (there && !flow_is_over(there, key.proto, held.seen) &&
	    !flow_is(there, held.frontend, held.frontend_port, SIDE_FRONTEND)) {
		return flow_enter_full(&key, &held);
	}
	if (bpf_map_update_elem(&flows, &key, &held, BPF_ANY))
		return DROP(FLOW_FULL);
	flow_changed(tuple->saddr, tuple->sport, tuple->proto);
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

/* Whether a packet that belongs to nothing here may belong to what the programs
 * of before or after these have entered. It is dropped then: taken for another
 * connection's it would end the one that it is of, and TCP sends it again when
 * the agent has copied what it belongs to. */
INLINE bool may_be_elsewhere(const struct packet *packet)
{
	__u32 key = 0, *until;

	if (packet->tuple.proto != PROTO_TCP || is_error(packet) || is_opening(packet))
		return false;
	until = bpf_map_lookup_elem(&handover, &key);
	return until && *until && (__s32)(*until - ticks()) > 0;
}

/* An error or an answer to an echo that nobody knows of is no first packet. */
INLINE bool begins_nothing(const struct packet *packet)
{
	return is_error(packet) ||
	       (packet->tuple.proto == PROTO_ICMP && packet->icmp_type == ICMP_ECHO_REPLY);
}
