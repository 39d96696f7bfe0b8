/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Packets that come in and go out by a network device. Destinations are
 * translated on the way in and sources on the way out, and the kernel routes in
 * between: what it routes has no address of its own as its source. */
#pragma once

/* Straight to a pod of this node. */
INLINE int netdev_to_pod(struct __sk_buff *ctx, struct packet *packet, struct story *story)
{
	struct found found = flow_find(packet, SIDE_FRONTEND, packet->tuple.daddr);
	struct flow begun;
	int rc;

	if (found.flow && found.way == WAY_REPLY) {
		flow_touch(found.flow, WAY_REPLY, packet, &packet->tuple, story);
		return reply_to_pod(ctx, packet, NULL, found.flow, story);
	}
	if (found.flow) {
		flow_touch(found.flow, WAY_REQUEST, packet, &packet->tuple, story);
		return pod_request(ctx, packet, NULL, found.flow, story);
	}
	if (begins_nothing(packet))
		return pass_untracked(ctx, packet, story);
	if (may_be_elsewhere(packet))
		return DROP(UNKNOWN_FLOW);
	story_begins(story);
	flow_init(&begun, packet);
	begun.identity = identity_of(packet->tuple.saddr);
	begun.backend_ep = endpoint_id(packet->tuple.daddr);
	rc = flow_enter(&packet->tuple, &begun, found.vacant);
	if (rc)
		return rc;
	return pod_request(ctx, packet, NULL, &begun, story);
}

/* A reply to a source that was translated: first back to who that was. If that
 * is a pod here, a service may have been in between as well. */
INLINE int netdev_reply(struct __sk_buff *ctx, struct packet *packet, const struct nat *nat,
			struct story *story)
{
	struct tuple to = packet->tuple;
	struct endpoint *pod = NULL;
	struct flow *flow = NULL;
	__u32 id = 0;
	int rc;

	story->state = STATE_REPLY;
	to.daddr = nat->addr;
	to.dport = nat->port;
	if (is_local_pod(to.daddr)) {
		flow = flow_reply(&to, to.daddr);
		if (flow) {
			flow_touch(flow, WAY_REPLY, packet, &to, story);
			id = flow->client_ep;
		}
		rc = deliverable(packet, id, to.daddr, &pod);
		if (rc)
			return rc;
		if (flow && pod)
			to = towards_client(&to, flow);
	}
	rc = rewrite(ctx, packet, NULL, &to);
	if (rc || !pod)
		return rc;
	return deliver(ctx, pod, story);
}

/* What may have a flow or a translated source: whatever the node begins has one. */
INLINE bool is_ours(const struct packet *packet)
{
	const struct tuple *tuple = &packet->tuple;

	return is_nat_port(tuple->proto, tuple->dport) ||
	       frontend_lookup(tuple->daddr, tuple->dport, tuple->proto, false);
}

/* To an address of the node, or one that it stands for: a service, or not. */
INLINE int netdev_request(struct __sk_buff *ctx, struct packet *packet, struct story *story)
{
	bool vacant;
	struct flow *flow = flow_request(packet, SIDE_FRONTEND, &vacant);
	struct flow begun;
	int rc;

	if (flow && flow->service && !begins_anew(packet, flow)) {
		flow_touch(flow, WAY_REQUEST, packet, &packet->tuple, story);
		return pod_request(ctx, packet, NULL, flow, story);
	}
	if (is_error(packet))
		return 0;
	if (!flow && may_be_elsewhere(packet) && is_ours(packet))
		return DROP(UNKNOWN_FLOW);
	flow_init(&begun, packet);
	rc = balance(packet, &begun, false);
	if (rc || !begun.service)
		return rc;
	story_begins(story);
	begun.identity = identity_of(packet->tuple.saddr);
	begun.backend_ep = endpoint_id(begun.backend);
	rc = flow_enter(&packet->tuple, &begun, vacant);
	if (rc)
		return rc;
	return pod_request(ctx, packet, NULL, &begun, story);
}

/* A packet that carries another one from node to node. It is no flow: what it
 * carries is looked at on the tunnel's own device. */
INLINE bool is_carrier(const struct packet *packet)
{
	return packet->tuple.proto == PROTO_UDP && !is_error(packet) && packet->tuple.dport &&
	       !is_local_pod(packet->saddr) && !is_local_pod(packet->daddr) &&
	       packet->tuple.dport == tunnel_port();
}

/* What most packets for a pod are: in the middle of a flow, or carried. */
INLINE bool netdev_to_pod_common(struct __sk_buff *ctx, struct story *story, int *verdict)
{
	struct headers headers;
	struct packet packet;
	struct ongoing found;

	if (!open_common(ctx, &packet, &headers, story) || is_local_pod(packet.tuple.saddr))
		return false;
	if (is_carrier(&packet)) {
		*verdict = 0;
		story->state = STATE_UNKNOWN;
		return true;
	}
	if (!is_local_pod(packet.tuple.daddr))
		return false;
	found = flow_find_common(&packet, SIDE_FRONTEND, story);
	if (found.way == WAY_NONE)
		return false;
	if (found.way == WAY_REPLY)
		*verdict = reply_to_pod(ctx, &packet, &headers, found.flow, story);
	else
		*verdict = pod_request(ctx, &packet, &headers, found.flow, story);
	return true;
}

/* Whether a packet comes by the tunnel and from this node, as it says: who can
 * send to the tunnel's port could pass for a neighbour of its pods. */
INLINE bool is_pretender(struct __sk_buff *ctx, const struct packet *packet)
{
	__u32 ifindex = ctx->ifindex;
	struct device *device;

	if (!is_local_pod(packet->saddr))
		return false;
	device = bpf_map_lookup_elem(&devices, &ifindex);
	return device && is_overlay(device);
}

/* The gateway's address lies among those of the pods, and is the node's: by an
 * overlay device it may stand for others as any address of a device. */
INLINE bool is_gateway(__be32 addr)
{
	__u32 id = endpoint_id(addr);
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &id);

	return id && endpoint && endpoint->addr == addr && endpoint->flags & ENDPOINT_HOST;
}

INLINE int from_netdev_packet(struct __sk_buff *ctx, struct story *story)
{
	struct packet packet;
	struct nat *nat;
	int rc = open_packet(ctx, &packet, story);

	if (rc == PARSE_NOT_IPV4)
		return 0;
	if (is_pretender(ctx, &packet))
		return DROP(INVALID_SOURCE);
	/* Nobody knows of a service here, so it can be the node's own. */
	if (rc == DROP(FRAGMENT_NOT_FOUND) && !is_local_pod(packet.daddr))
		return 0;
	if (rc < 0)
		return rc;
	if (rc == PARSE_OPAQUE) {
		if (!is_local_pod(packet.daddr))
			return 0;
		if (packet.proto != PROTO_ICMP)
			return DROP(UNKNOWN_PROTOCOL);
		return pass_untracked(ctx, &packet, story);
	}
	if (is_local_pod(packet.tuple.daddr) && !is_gateway(packet.tuple.daddr))
		return netdev_to_pod(ctx, &packet, story);
	if (is_carrier(&packet))
		return 0;
	nat = nat_lookup(&packet, story);
	if (nat)
		return netdev_reply(ctx, &packet, nat, story);
	return netdev_request(ctx, &packet, story);
}

/* The way out of a request: with its own source or a translated one. */
INLINE int leave(struct __sk_buff *ctx, struct packet *packet, struct flow *flow)
{
	struct tuple to = packet->tuple;

	if (!flow->nat_addr)
		return 0;
	if (!is_error(packet))
		nat_refresh(&packet->tuple, flow);
	to.saddr = flow->nat_addr;
	to.sport = flow->nat_port;
	return rewrite(ctx, packet, NULL, &to);
}

INLINE int leave_known(struct __sk_buff *ctx, struct packet *packet, struct flow *flow,
		       const struct device *device, struct story *story)
{
	int rc;

	flow_touch(flow, WAY_REQUEST, packet, &packet->tuple, story);
	if (!(flow->flags & FLOW_NAT_DECIDED)) {
		if (is_error(packet))
			return 0;
		rc = nat_assign(packet, flow, device, nat_decide(&packet->tuple, flow, device));
		if (rc)
			return rc;
		/* Where it began was elsewhere; here it is the first. */
		if (flow->flags & FLOW_NAT_DECIDED)
			story->notable = 1;
	}
	return leave(ctx, packet, flow);
}

/* Only what needs a translated or a reserved port is worth a flow here. */
INLINE int leave_unknown(struct __sk_buff *ctx, struct packet *packet,
			 const struct device *device, struct story *story)
{
	enum decision decision = nat_decide(&packet->tuple, NULL, device);
	struct flow begun;
	int rc;

	if (decision == DECISION_KEEP)
		return 0;
	if (may_be_elsewhere(packet))
		return DROP(UNKNOWN_FLOW);
	story_begins(story);
	flow_init(&begun, packet);
	begun.client_ep = endpoint_id(packet->tuple.saddr);
	begun.identity = decision == DECISION_RESERVE ? IDENTITY_HOST
						      : endpoint_identity(begun.client_ep);
	rc = nat_assign(packet, &begun, device, decision);
	if (rc)
		return rc;
	rc = flow_enter(&packet->tuple, &begun, false);
	if (rc)
		return rc;
	return leave(ctx, packet, &begun);
}

INLINE int to_netdev_packet(struct __sk_buff *ctx, struct story *story)
{
	__u32 ifindex = ctx->ifindex;
	struct device *device = bpf_map_lookup_elem(&devices, &ifindex);
	struct packet packet;
	struct found found;
	int rc;

	if (!device)
		return 0;
	if (is_overlay(device))
		story->point = POINT_TO_OVERLAY;
	rc = open_packet(ctx, &packet, story);
	if (rc == PARSE_NOT_IPV4 || rc == PARSE_OPAQUE)
		return 0;
	if (rc == DROP(FRAGMENT_NOT_FOUND) &&
	    (!is_local_pod(packet.saddr) || is_native(packet.daddr)))
		return 0;
	if (rc < 0)
		return rc;
	if (is_carrier(&packet))
		return 0;
	found = flow_find(&packet, SIDE_BACKEND, packet.tuple.daddr);
	if (found.flow && found.way == WAY_REPLY) {
		struct tuple to = towards_client(&packet.tuple, found.flow);

		flow_touch(found.flow, WAY_REPLY, &packet, &packet.tuple, story);
		return rewrite(ctx, &packet, NULL, &to);
	}
	if (found.flow)
		return leave_known(ctx, &packet, found.flow, device, story);
	if (begins_nothing(&packet))
		return 0;
	return leave_unknown(ctx, &packet, device, story);
}
