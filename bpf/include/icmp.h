/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* ICMP errors (RFC 5508): who gets one must find in it the packet that he sent.
 * The packet that is quoted went the other way, so its source is the tuple's
 * destination. */
#pragma once

/* Updates the checksum of a quoted header, and returns what that does to the
 * sum of the error around it. */
INLINE __u64 quoted_checksum(__u16 *sum, void *end, __u64 diff, bool optional)
{
	__u16 old, new;

	if ((void *)(sum + 1) > end) /* of TCP only the ports need be quoted */
		return 0;
	old = *sum;
	if (optional && !old)
		return 0;
	new = checksum_apply(old, diff);
	if (optional && !new)
		new = 0xffff;
	*sum = new;
	return diff16(0, old, new);
}

INLINE int rewrite_quoted_ports(const struct packet *packet, const struct tuple *to, __u64 *change)
{
	const struct tuple *from = &packet->tuple;
	__u64 ports = port_diff(from, to);
	struct ports *header = packet->inner_l4;

	if ((void *)(header + 2) > packet->end)
		return DROP(WRITE);
	header->source = to->dport;
	header->destination = to->sport;
	*change = ports;
	if (to->proto == PROTO_TCP)
		*change += quoted_checksum((void *)header + TCP_CHECK, packet->end,
					   address_diff(from, to) + ports, false);
	else
		*change += quoted_checksum((void *)header + UDP_CHECK, packet->end,
					   address_diff(from, to) + ports, true);
	return 0;
}

/* The quoted IPv4 header keeps its sum, by its own checksum; so does a quoted
 * echo. What is left are ports and the checksums that cover addresses. */
INLINE int rewrite_error(const struct packet *packet, const struct tuple *to)
{
	const struct tuple *from = &packet->tuple;
	struct icmp *icmp = packet->l4;
	__be32 saddr = packet->ip->saddr;
	__u64 change = 0;
	int rc;

	if (!icmp) /* cannot be; the verifier does not know */
		return DROP(WRITE);
	if (to->proto == PROTO_ICMP)
		rc = rewrite_echo(packet->inner_l4, packet->end, from, to);
	else
		rc = rewrite_quoted_ports(packet, to, &change);
	if (rc)
		return rc;
	rewrite_addresses(packet->inner, to->daddr, to->saddr);
	icmp->check = checksum_apply(icmp->check, change);
	/* A router in between speaks for itself, the other end for whom it is
	 * known as. */
	if (saddr == from->saddr)
		saddr = to->saddr;
	rewrite_addresses(packet->ip, saddr, to->daddr);
	return 0;
}

/* Makes the packet one of tuple to. Its pointers must not be used afterwards:
 * a checksum helper may have moved the buffer. */
INLINE int rewrite(struct __sk_buff *ctx, const struct packet *packet, const struct tuple *to)
{
	const struct tuple *from = &packet->tuple;

	if (from->saddr == to->saddr && from->daddr == to->daddr &&
	    from->sport == to->sport && from->dport == to->dport)
		return 0;
	if (is_error(packet))
		return rewrite_error(packet, to);
	return rewrite_packet(ctx, packet, to);
}
