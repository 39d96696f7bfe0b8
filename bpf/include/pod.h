/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Packets from a pod and to a pod, on the node's end of its veth pair. */
#pragma once

INLINE bool owns(__u32 id, __be32 addr, __u32 ifindex)
{
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &id);

	return id && endpoint && endpoint->addr == addr && endpoint->ifindex == ifindex;
}

/* A pod sends by its own address only. Given id is the flow's idea of who that
 * is, which spares an established flow the lookup by address. Returns the
 * endpoint's id, 0 if the address is not this pod's. */
INLINE __u32 sender(struct __sk_buff *ctx, const struct packet *packet, __u32 id)
{
	__be32 addr = packet->saddr;

	if (owns(id, addr, ctx->ifindex))
		return id;
	id = endpoint_id(addr);
	return owns(id, addr, ctx->ifindex) ? id : 0;
}

INLINE __u32 endpoint_identity(__u32 id)
{
	struct endpoint *endpoint = bpf_map_lookup_elem(&endpoints, &id);

	return endpoint ? endpoint->identity : 0;
}

/* The first packet of a flow that a pod begins. */
INLINE int pod_begins(const struct packet *packet, struct flow *flow, __u32 self, bool vacant)
{
	int rc;

	flow_init(flow, packet);
	flow->client_ep = self;
	flow->identity = endpoint_identity(self);
	rc = balance(packet, flow, true);
	if (rc)
		return rc;
	if (flow->backend == packet->tuple.saddr) {
		flow->flags |= FLOW_LOOPBACK;
		flow->backend_ep = self;
	} else {
		flow->backend_ep = endpoint_id(flow->backend);
	}
	return flow_enter(&packet->tuple, flow, vacant);
}

INLINE int pod_request(struct __sk_buff *ctx, const struct packet *packet,
		       const struct headers *headers, const struct flow *flow,
		       struct story *story)
{
	struct tuple to = towards_backend(&packet->tuple, flow);
	struct endpoint *pod;
	int rc;

	rc = deliverable(packet, flow->backend_ep, to.daddr, &pod);
	if (!rc)
		rc = rewrite(ctx, packet, headers, &to);
	if (rc || !pod)
		return rc;
	return deliver(ctx, pod, story);
}

/* A reply takes the frontend's address only at the last step to its client: the
 * kernel would not route a packet that bears an address of its own. */
INLINE int reply_to_pod(struct __sk_buff *ctx, const struct packet *packet,
			const struct headers *headers, const struct flow *flow,
			struct story *story)
{
	struct tuple to = towards_client(&packet->tuple, flow);
	struct endpoint *pod;
	int rc;

	rc = deliverable(packet, flow->client_ep, to.daddr, &pod);
	if (rc || !pod)
		return rc;
	rc = rewrite(ctx, packet, headers, &to);
	if (rc)
		return rc;
	return deliver(ctx, pod, story);
}

/* To an address that has no flow, and shall have none. */
INLINE int pass_untracked(struct __sk_buff *ctx, const struct packet *packet, struct story *story)
{
	struct endpoint *pod;
	int rc = deliverable(packet, 0, packet->daddr, &pod);

	if (rc || !pod)
		return rc;
	return deliver(ctx, pod, story);
}

INLINE int pod_sends(struct __sk_buff *ctx, struct packet *packet, struct story *story)
{
	const struct tuple *tuple = &packet->tuple;
	__be32 client = tuple->daddr == config.loopback ? tuple->saddr : tuple->daddr;
	struct found found = flow_find(packet, SIDE_FRONTEND, client);
	struct flow begun;
	__u32 self = 0;
	int rc;

	if (found.flow)
		self = found.way == WAY_REPLY ? found.flow->backend_ep : found.flow->client_ep;
	self = sender(ctx, packet, self);
	if (!self)
		return DROP(INVALID_SOURCE);

	if (found.flow && found.way == WAY_REPLY) {
		flow_touch(found.flow, WAY_REPLY, packet, &packet->tuple, story);
		return reply_to_pod(ctx, packet, NULL, found.flow, story);
	}
	if (found.flow && !begins_anew(packet, found.flow)) {
		flow_touch(found.flow, WAY_REQUEST, packet, &packet->tuple, story);
	} else if (begins_nothing(packet)) {
		return pass_untracked(ctx, packet, story);
	} else if (!found.flow && may_be_elsewhere(packet)) {
		return DROP(UNKNOWN_FLOW);
	} else {
		story_begins(story);
		rc = pod_begins(packet, &begun, self, found.vacant);
		if (rc)
			return rc;
		found.flow = &begun;
	}
	return pod_request(ctx, packet, NULL, found.flow, story);
}

/* What most packets of a pod are: in the middle of a flow whose owner and whose
 * backend are as they were. False where anything is not so. */
INLINE bool pod_sends_common(struct __sk_buff *ctx, struct story *story, int *verdict)
{
	struct headers headers;
	struct packet packet;
	struct ongoing found;

	if (!open_common(ctx, &packet, &headers, story))
		return false;
	found = flow_find_common(&packet, SIDE_FRONTEND, story);
	if (found.way == WAY_REQUEST) {
		if (!owns(found.flow->client_ep, packet.tuple.saddr, ctx->ifindex) ||
		    begins_anew(&packet, found.flow))
			return false;
		*verdict = pod_request(ctx, &packet, &headers, found.flow, story);
		return true;
	}
	if (found.way == WAY_REPLY) {
		if (!owns(found.flow->backend_ep, packet.tuple.saddr, ctx->ifindex))
			return false;
		*verdict = reply_to_pod(ctx, &packet, &headers, found.flow, story);
		return true;
	}
	return false;
}

INLINE int from_pod_packet(struct __sk_buff *ctx, struct story *story)
{
	struct packet packet;
	int rc = open_packet(ctx, &packet, story);

	if (rc == PARSE_NOT_IPV4)
		return packet.type == bpf_htons(ETHERTYPE_ARP) ? 0 : DROP(UNSUPPORTED_L3);
	if (rc < 0)
		return rc;
	if (rc == PARSE_OPAQUE) {
		if (!sender(ctx, &packet, 0))
			return DROP(INVALID_SOURCE);
		if (packet.proto != PROTO_ICMP)
			return DROP(UNKNOWN_PROTOCOL);
		return pass_untracked(ctx, &packet, story);
	}
	return pod_sends(ctx, &packet, story);
}

/* What the stack delivers: from the node itself, or routed by it. */
INLINE int pod_receives(struct __sk_buff *ctx, struct packet *packet, struct story *story)
{
	struct found found = flow_find(packet, SIDE_BACKEND, packet->tuple.daddr);
	struct flow begun;

	if (found.flow) {
		struct tuple to = packet->tuple;

		flow_touch(found.flow, found.way, packet, &packet->tuple, story);
		if (found.way == WAY_REPLY)
			to = towards_client(&packet->tuple, found.flow);
		return rewrite(ctx, packet, NULL, &to);
	}
	if (begins_nothing(packet))
		return 0;
	if (may_be_elsewhere(packet))
		return DROP(UNKNOWN_FLOW);
	story_begins(story);
	flow_init(&begun, packet);
	begun.identity = identity_of(packet->tuple.saddr);
	begun.backend_ep = endpoint_id(packet->tuple.daddr);
	return flow_enter(&packet->tuple, &begun, found.vacant);
}

INLINE int to_pod_packet(struct __sk_buff *ctx, struct story *story)
{
	struct packet packet;
	int rc = open_packet(ctx, &packet, story);

	if (rc == PARSE_NOT_IPV4)
		return 0;
	if (rc < 0)
		return rc;
	if (rc == PARSE_OPAQUE)
		return packet.proto == PROTO_ICMP ? 0 : DROP(UNKNOWN_PROTOCOL);
	return pod_receives(ctx, &packet, story);
}

/* From the node's stack, by its route for its own pods: straight to the device
 * of the pod, where to_pod sees it. */
INLINE int from_host_packet(struct __sk_buff *ctx, struct story *story)
{
	struct cursor cursor = {
		.at = CONTEXT_POINTER(ctx, data),
		.end = CONTEXT_POINTER(ctx, data_end),
	};
	struct ethernet *eth = take(&cursor, sizeof(*eth));
	struct endpoint *pod;
	struct ipv4 *ip;
	__u32 id;
	int rc;

	if (!eth || eth->type != bpf_htons(ETHERTYPE_IPV4))
		return 0;
	ip = take_ipv4(&cursor);
	if (!ip)
		return DROP(TRUNCATED);
	story->saddr = ip->saddr;
	if (!is_local_pod(ip->daddr))
		return 0;
	id = endpoint_id(ip->daddr);
	pod = bpf_map_lookup_elem(&endpoints, &id);
	if (!id || !pod || pod->addr != ip->daddr || pod->flags & ENDPOINT_HOST)
		return DROP(UNROUTABLE);
	rc = address_frame(ctx, pod, false);
	if (rc)
		return rc;
	return bpf_redirect(pod->ifindex, 0);
}
