/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* From one tuple to another, in the packet: addresses, ports and every checksum
 * that covers them. */
#pragma once

enum summed {
	SUMMED_PLAIN,   /* nothing but the packet holds its checksum */
	SUMMED_PARTIAL, /* the device finishes it */
	SUMMED_ELSEWHERE, /* the kernel has a sum of the packet too, or may have */
};

/* Reading ip_summed saves the helper calls; where the kernel cannot be asked
 * the helpers are right in each case. */
INLINE enum summed summed(struct __sk_buff *ctx)
{
	struct sk_buff *skb;
	__u8 state;

	if (!config.kernel_ctx)
		return SUMMED_ELSEWHERE;
	skb = bpf_cast_to_kern_ctx(ctx);
	state = BPF_CORE_READ_BITFIELD(skb, ip_summed);
	if (state == 3) /* CHECKSUM_PARTIAL */
		return SUMMED_PARTIAL;
	return state == 2 /* CHECKSUM_COMPLETE */ ? SUMMED_ELSEWHERE : SUMMED_PLAIN;
}

/* The sum of an IPv4 packet does not change with its addresses, for the header
 * checksum makes up for them; so this needs no regard to ip_summed. */
INLINE void rewrite_addresses(struct ipv4 *ip, __be32 saddr, __be32 daddr)
{
	__u64 diff = diff32(diff32(0, ip->saddr, saddr), ip->daddr, daddr);

	ip->check = checksum_apply(ip->check, diff);
	ip->saddr = saddr;
	ip->daddr = daddr;
}

INLINE __u64 address_diff(const struct tuple *from, const struct tuple *to)
{
	return diff32(diff32(0, from->saddr, to->saddr), from->daddr, to->daddr);
}

INLINE __u64 port_diff(const struct tuple *from, const struct tuple *to)
{
	return diff16(diff16(0, from->sport, to->sport), from->dport, to->dport);
}

/* TCP and UDP: ports, and the checksum at offset check of the header. */
INLINE int rewrite_ports(struct __sk_buff *ctx, const struct packet *packet,
			 const struct headers *headers, const struct tuple *to,
			 __u32 check, bool optional)
{
	const struct tuple *from = &packet->tuple;
	__u64 addresses = address_diff(from, to), ports = port_diff(from, to);
	struct ports *header = headers->l4;
	__u32 offset = packet->l4 + check;
	enum summed state = summed(ctx);
	__u64 flags = optional ? BPF_F_MARK_MANGLED_0 : 0;
	__u16 *sum = headers->l4 + check;

	if ((void *)(sum + 1) > headers->end)
		return DROP(WRITE);
	header->source = to->sport;
	header->destination = to->dport;
	if (state == SUMMED_PARTIAL) {
		*sum = checksum_apply_partial(*sum, addresses);
		return 0;
	}
	if (optional && !*sum)
		return 0;
	if (state == SUMMED_PLAIN) {
		__u16 new = checksum_apply(*sum, addresses + ports);

		*sum = optional && !new ? 0xffff : new;
		return 0;
	}
	if (bpf_l4_csum_replace(ctx, offset, 0, fold(addresses), flags | BPF_F_PSEUDO_HDR) ||
	    bpf_l4_csum_replace(ctx, offset, 0, fold(ports), flags))
		return DROP(CSUM_L4);
	return 0;
}

/* The checksum of ICMP covers no addresses, and all that it covers is in the
 * packet: here too no sum beside the packet changes. */
INLINE int rewrite_echo(void *header, void *end, const struct tuple *from, const struct tuple *to)
{
	struct icmp *icmp = header;
	__be16 id = from->sport != to->sport ? to->sport : to->dport;

	if (header + sizeof(*icmp) > end)
		return DROP(WRITE);
	if (from->sport == to->sport && from->dport == to->dport)
		return 0;
	icmp->check = checksum_apply(icmp->check, diff16(0, icmp->id, id));
	icmp->id = id;
	return 0;
}

INLINE int rewrite_packet(struct __sk_buff *ctx, const struct packet *packet,
			  const struct headers *headers, const struct tuple *to)
{
	rewrite_addresses(headers->ip, to->saddr, to->daddr);
	if (is_headless(packet))
		return 0;
	switch (to->proto) {
	case PROTO_TCP:
		return rewrite_ports(ctx, packet, headers, to, TCP_CHECK, false);
	case PROTO_UDP:
		return rewrite_ports(ctx, packet, headers, to, UDP_CHECK, true);
	}
	return rewrite_echo(headers->l4, headers->end, &packet->tuple, to);
}
