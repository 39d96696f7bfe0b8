/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What a client is told of a service without backends: that nobody listens. */
#pragma once

#define BPF_ADJ_ROOM_MAC 1
#define BPF_F_RECOMPUTE_CSUM 1

#define ICMP_PORT_UNREACHABLE 3
#define DONT_FRAGMENT 0x4000
#define TTL 64

/* As much of a packet as is quoted of it: of UDP all of the header, of TCP too,
 * because the kernel does not cut off a checksum that is yet to be finished. */
#define QUOTED_TCP TCP_MIN
#define QUOTED_UDP 8

struct answer {
	struct ipv4 ip;
	struct icmp icmp;
};

/* The sum of 32-bit words, in 16 bits. */
INLINE __u16 sum_of(const void *words, __u32 size)
{
	return fold((__u32)bpf_csum_diff(NULL, 0, (void *)words, size, 0));
}

/* A TCP or UDP checksum that is left to a device may be finished on the way out,
 * which would spoil the sum of the error around it. Which packets are of that
 * kind the datapath cannot always tell, nor can it finish the sum: it would be
 * done again. So it takes the value that finishing does not change: c = -(s + c),
 * s being the sum of all else that is quoted. That is half of -s, and half of an
 * odd number is found by adding 0xffff, which is 0. */
INLINE __u16 settled(__u16 sum, __u16 check)
{
	__u32 twice = (__u16)~fold((__u64)sum + (__u16)~check);

	return (twice & 1 ? twice + 0xffff : twice) >> 1;
}

INLINE bool may_be_unfinished(struct __sk_buff *ctx)
{
	return !config.kernel_ctx || summed(ctx) == SUMMED_PARTIAL;
}

/* RFC 1122, 3.2.2: what no error is sent about. Errors themselves never get
 * here, for services have ports. */
INLINE bool is_answerable(const struct ethernet *eth, const struct ipv4 *ip)
{
	__u8 net = bpf_ntohl(ip->saddr) >> 24;

	return !(eth->destination[0] & 1) && !is_later_fragment(ip) &&
	       net != 0 && net != 127 && net < 224;
}

INLINE void answer_to(const struct ipv4 *ip, __u32 quoted, __u16 sum, struct answer *answer)
{
	__builtin_memset(answer, 0, sizeof(*answer));
	answer->ip.version_ihl = 0x45;
	answer->ip.length = bpf_htons(sizeof(*answer) + quoted);
	answer->ip.fragment = bpf_htons(DONT_FRAGMENT);
	answer->ip.ttl = TTL;
	answer->ip.proto = PROTO_ICMP;
	answer->ip.saddr = ip->daddr;
	answer->ip.daddr = ip->saddr;
	answer->ip.check = ~sum_of(&answer->ip, sizeof(answer->ip));
	answer->icmp.type = ICMP_UNREACHABLE;
	answer->icmp.code = ICMP_PORT_UNREACHABLE;
	answer->icmp.check = ~fold((__u64)sum_of(&answer->icmp, sizeof(answer->icmp)) + sum);
}

/* Makes of the packet an answer by the frontend that it is for: destination
 * unreachable, port unreachable. The quoted header's own sum is 0, else it is
 * wrong, and then the answer is as well. */
INLINE int make_answer(struct __sk_buff *ctx)
{
	struct ethernet eth, back;
	struct answer answer;
	struct ipv4 ip;
	__u32 l4[QUOTED_TCP / 4] = {}, at, size;
	__u16 check, sum;

	if (bpf_skb_load_bytes(ctx, 0, &eth, sizeof(eth)) ||
	    bpf_skb_load_bytes(ctx, sizeof(eth), &ip, sizeof(ip)) || !is_answerable(&eth, &ip))
		return -1;
	at = sizeof(eth) + (ip.version_ihl & 0xf) * 4;
	size = ip.proto == PROTO_TCP ? QUOTED_TCP : QUOTED_UDP;
	if (bpf_skb_load_bytes(ctx, at, l4, size))
		return -1;
	sum = sum_of(l4, sizeof(l4)); /* what is not quoted is 0 */
	check = ip.proto == PROTO_TCP ? l4[TCP_CHECK / 4] : l4[UDP_CHECK / 4] >> 16;
	if (bpf_skb_change_tail(ctx, at + size, 0))
		return -1;
	if (check && may_be_unfinished(ctx)) {
		__u16 new = settled(sum, check);

		sum = fold(diff16(sum, check, new));
		if (bpf_skb_store_bytes(ctx, at + (ip.proto == PROTO_TCP ? TCP_CHECK : UDP_CHECK),
					&new, sizeof(new), BPF_F_RECOMPUTE_CSUM))
			return -1;
	}
	if (bpf_skb_adjust_room(ctx, sizeof(answer), BPF_ADJ_ROOM_MAC, 0))
		return -1;
	answer_to(&ip, at - sizeof(eth) + size, sum, &answer);
	__builtin_memcpy(back.destination, eth.source, sizeof(back.destination));
	__builtin_memcpy(back.source, eth.destination, sizeof(back.source));
	back.type = eth.type;
	return bpf_skb_store_bytes(ctx, 0, &back, sizeof(back), 0) ||
	       bpf_skb_store_bytes(ctx, sizeof(back), &answer, sizeof(answer), BPF_F_RECOMPUTE_CSUM);
}

/* Answers, and sends that back to where the packet came from: into the pod, or
 * out by the device. */
__noinline int refuse(struct __sk_buff *ctx, bool pod)
{
	if (make_answer(ctx))
		return TC_ACT_SHOT;
	if (pod)
		return bpf_redirect_peer(ctx->ifindex, 0);
	return bpf_redirect(ctx->ifindex, 0);
}

/* The end of a packet of a client: who calls a service without backends is
 * answered. It counts as dropped all the same. */
INLINE int finish_client(struct __sk_buff *ctx, const struct story *story, int verdict, bool pod)
{
	if (verdict != DROP(NO_BACKEND))
		return finish(ctx, story, verdict);
	finish_dropped(ctx, story, REASON_NO_BACKEND);
	return refuse(ctx, pod);
}
