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

/* Returns what it does to the sum of the error. */
INLINE __u64 rewrite_quoted_ports(const struct tuple *from, const struct tuple *to,
				  struct ports *header, void *end)
{
	__u64 ports = port_diff(from, to);

	header->source = to->dport;
	header->destination = to->sport;
	if (to->proto == PROTO_TCP)
		return ports + quoted_checksum((void *)header + TCP_CHECK, end,
					       address_diff(from, to) + ports, false);
	return ports + quoted_checksum((void *)header + UDP_CHECK, end,
				       address_diff(from, to) + ports, true);
}

/* The quoted IPv4 header keeps its sum, by its own checksum; so does a quoted
 * echo. What is left are ports and the checksums that cover addresses. */
INLINE int rewrite_error(const struct packet *packet, const struct headers *headers,
			 const struct tuple *to, void *data)
{
	const struct tuple *from = &packet->tuple;
	struct icmp *icmp = headers->l4;
	struct ipv4 *inner = data + packet->inner;
	void *ports = data + packet->inner_l4, *end = headers->end;
	__be32 saddr = packet->saddr;
	__u64 change = 0;

	if ((void *)(icmp + 1) > end || (void *)(inner + 1) > end || ports + 8 > end)
		return DROP(WRITE);
	if (to->proto != PROTO_ICMP)
		change = rewrite_quoted_ports(from, to, ports, end);
	else if (rewrite_echo(ports, end, from, to))
		return DROP(WRITE);
	rewrite_addresses(inner, to->daddr, to->saddr);
	icmp->check = checksum_apply(icmp->check, change);
	/* A router in between speaks for itself, the other end for whom it is
	 * known as. */
	if (saddr == from->saddr)
		saddr = to->saddr;
	rewrite_addresses(headers->ip, saddr, to->daddr);
	return 0;
}

/* Whatever the packet is: off the lane. */
__noinline int rewrite_any(struct __sk_buff *ctx, const struct packet *packet,
			   const struct tuple *to)
{
	void *data = CONTEXT_POINTER(ctx, data);
	struct headers headers = {
		.ip = data + sizeof(struct ethernet),
		.end = CONTEXT_POINTER(ctx, data_end),
	};

	if (!packet || !to || (void *)(headers.ip + 1) > headers.end)
		return DROP(WRITE);
	headers.l4 = data + packet->l4;
	if (is_error(packet))
		return rewrite_error(packet, &headers, to, data);
	if (!is_headless(packet) && headers.l4 + sizeof(struct icmp) > headers.end)
		return DROP(WRITE);
	return rewrite_packet(ctx, packet, &headers, to);
}

/* Makes the packet one of tuple to. Pointers into it must not be used afterwards:
 * a checksum helper may have moved the buffer. headers are NULL off the lane. */
INLINE int rewrite(struct __sk_buff *ctx, const struct packet *packet,
		   const struct headers *headers, const struct tuple *to)
{
	const struct tuple *from = &packet->tuple;
	struct tuple copy;

	if (from->saddr == to->saddr && from->daddr == to->daddr &&
	    from->sport == to->sport && from->dport == to->dport)
		return 0;
	if (headers)
		return rewrite_packet(ctx, packet, headers, to);
	copy = *to; /* whose address is taken is kept in memory */
	return rewrite_any(ctx, packet, &copy);
}
