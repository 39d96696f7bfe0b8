/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The last step to a pod of this node. */
#pragma once

/* The pod that a packet for addr can be handed to without the stack; none if
 * the node routes it, or must answer it because its TTL ends here. Given id is
 * where to look first. */
INLINE int deliverable(const struct packet *packet, __u32 id, __be32 addr, struct endpoint **pod)
{
	struct endpoint *endpoint = NULL;

	*pod = NULL;
	if (id)
		endpoint = bpf_map_lookup_elem(&endpoints, &id);
	if (!endpoint || endpoint->addr != addr) {
		if (!is_local_pod(addr))
			return 0;
		id = endpoint_id(addr);
		endpoint = bpf_map_lookup_elem(&endpoints, &id);
		/* The node's route for its pods leads back here: let it not turn
		 * in circles. */
		if (!id || !endpoint || endpoint->addr != addr)
			return DROP(UNROUTABLE);
	}
	if (endpoint->flags & ENDPOINT_HOST || packet->ttl <= 1)
		return 0;
	*pod = endpoint;
	return 0;
}

/* Addresses the frame to the pod, and counts this node as a hop where it is. */
INLINE int address_frame(struct __sk_buff *ctx, const struct endpoint *pod, bool hop)
{
	struct cursor cursor = {
		.at = CONTEXT_POINTER(ctx, data),
		.end = CONTEXT_POINTER(ctx, data_end),
	};
	struct ethernet *eth = take(&cursor, sizeof(*eth));
	struct ipv4 *ip;

	if (!eth)
		return DROP(WRITE);
	__builtin_memcpy(eth->destination, pod->mac, 6);
	__builtin_memcpy(eth->source, pod->host_mac, 6);
	if (!hop)
		return 0;
	ip = take(&cursor, sizeof(*ip));
	if (!ip)
		return DROP(WRITE);
	/* TTL is the upper byte of its 16-bit word on the wire. */
	ip->check = checksum_apply(ip->check, diff16(0, bpf_htons(0x0100), 0));
	ip->ttl--;
	return 0;
}

INLINE int deliver(struct __sk_buff *ctx, const struct endpoint *pod, struct story *story)
{
	int rc = address_frame(ctx, pod, true);

	if (rc)
		return rc;
	story->point = POINT_TO_ENDPOINT;
	return bpf_redirect_peer(pod->ifindex, 0);
}
