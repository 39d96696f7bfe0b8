/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Balancing of packets: for what no socket hook has balanced before. */
#pragma once

/* Gives a flow that begins its backend, if it goes to a service. Returns the
 * reason if it goes to one and there is no backend. */
INLINE int balance(const struct packet *packet, struct flow *flow, bool in_cluster)
{
	const struct tuple *tuple = &packet->tuple;
	struct frontend_key key = {
		.addr = tuple->daddr,
		.port = tuple->dport,
		.proto = tuple->proto,
	};
	struct asker asker = {
		.client = tuple->saddr,
		.addr = tuple->saddr,
		.port = tuple->sport,
	};
	struct frontend *frontend;
	struct backend *backend;

	if (tuple->proto == PROTO_ICMP)
		return 0;
	frontend = frontend_lookup(key.addr, key.port, key.proto, in_cluster);
	if (!frontend)
		return 0;
	if (!in_cluster && !(frontend->flags & FRONTEND_ROUTABLE))
		return DROP(CLUSTER_IP);
	asker.draw = bpf_get_prandom_u32();
	flow->backend_id = backend_select(frontend, &key, &asker, true);
	backend = backend_lookup(flow->backend_id);
	if (!backend)
		return DROP(NO_BACKEND);
	flow->service = frontend->id;
	flow->backend = backend->addr;
	flow->backend_port = backend->port;
	if (!in_cluster)
		flow->flags |= FLOW_EXTERNAL;
	return 0;
}

/* Whether the next packet of a known flow begins it anew: its backend is gone,
 * or a client opens a connection, and not again the one that is half open. */
INLINE bool begins_anew(const struct packet *packet, const struct flow *flow)
{
	bool opening = is_opening(packet);
	struct backend *backend;

	if (is_error(packet))
		return false;
	if (!flow->service)
		return opening;
	backend = backend_lookup(flow->backend_id);
	if (!backend || backend->addr != flow->backend || backend->port != flow->backend_port)
		return true;
	return opening && (flow_is_closing(flow) || backend->state != BACKEND_ACTIVE);
}

/* The tuple behind the translation of the destination, and before that of the
 * source of a reply. */
INLINE struct tuple towards_backend(const struct tuple *tuple, const struct flow *flow)
{
	struct tuple to = *tuple;

	to.daddr = flow->backend;
	to.dport = flow->backend_port;
	if (flow->flags & FLOW_LOOPBACK)
		to.saddr = config.loopback;
	return to;
}

INLINE struct tuple towards_client(const struct tuple *tuple, const struct flow *flow)
{
	struct tuple to = *tuple;

	to.saddr = flow->frontend;
	to.sport = flow->frontend_port;
	if (flow->flags & FLOW_LOOPBACK)
		to.daddr = tuple->saddr;
	return to;
}
