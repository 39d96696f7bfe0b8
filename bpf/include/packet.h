/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* From bytes to facts: a cursor walks the packet, with one bounds check for each
 * header, and what it finds is all that the rest of the datapath asks. */
#pragma once

struct ethernet {
	__u8 destination[6];
	__u8 source[6];
	__be16 type;
};

struct ipv4 {
	__u8 version_ihl;
	__u8 tos;
	__be16 length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 proto;
	__u16 check;
	__be32 saddr;
	__be32 daddr;
};

struct ports {
	__be16 source;
	__be16 destination;
};

struct icmp {
	__u8 type;
	__u8 code;
	__u16 check;
	__be16 id;
	__be16 sequence;
};

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806

#define PROTO_ICMP 1
#define PROTO_TCP 6
#define PROTO_UDP 17

#define FRAGMENT_MORE 0x2000
#define FRAGMENT_OFFSET 0x1fff

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10
#define SEEN TCP_ACK /* stands for the flags of what has none: UDP and ICMP */
#define TCP_FLAGS 13 /* offsets in the TCP header */
#define TCP_CHECK 16
#define TCP_MIN 20
#define UDP_CHECK 6

#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12

/* What one run of a program tells of its packet, filled as it gets known. It
 * stays in registers as long as nobody takes its address: a few stores to the
 * stack and loads of another width cost more than a hash lookup. */
struct story {
	__be32 saddr; /* as it came; 0 if it is no IPv4 */
	__u8 direction;
	__u8 point;
	__u8 state;
	__u8 notable; /* the first of a flow or of its replies, or one of the last */
};

/* Echoes have an id in place of ports: the port of whoever asked. It has no
 * padding, for it is handed to functions that the verifier looks at by
 * themselves: there no byte may be left unwritten. */
struct tuple {
	__be32 saddr;
	__be32 daddr;
	__be16 sport;
	__be16 dport;
	__u32 proto;
};

/* Facts and no pointers: what the verifier knows of a pointer it follows along
 * each way that leads on from there, and of a number that came out of a function
 * of its own it knows nothing. So the ways of a parser are looked at once, not
 * once for each way of what comes after. No padding here either. */
struct packet {
	/* Of an ICMP error: of the packet that caused it, turned round, so that
	 * the error goes the way of a reply, or of a reply to a reply. */
	struct tuple tuple;
	__be32 saddr; /* of the packet itself */
	__be32 daddr;
	/* Offsets, 0 where there is none. */
	__u8 l4;       /* of 8 bytes at least; none in all but the first of fragments */
	__u8 inner;    /* of the header that an ICMP error quotes */
	__u8 inner_l4; /* of 8 bytes at least */
	__u8 ttl;
	__be16 type; /* of the frame */
	__u8 proto;
	__u8 icmp_type;
	__u8 tcp_flags; /* SEEN of what is not TCP */
	__u8 pad[3];
};

/* Where the packet is, on the lane: it leads straight on to where that is used. */
struct headers {
	struct ipv4 *ip;
	void *l4; /* TCP_MIN bytes at least */
	void *end;
};

INLINE bool is_error(const struct packet *packet)
{
	return packet->inner;
}

INLINE bool is_headless(const struct packet *packet)
{
	return !packet->l4;
}

/* Steps that are no verdict: the caller knows what they mean where it stands. */
enum {
	PARSE_NOT_IPV4 = 1,
	PARSE_OPAQUE = 2, /* IPv4, but nothing that has ports */
};

struct cursor {
	void *at;
	void *end;
};

/* The compiler likes to fold the offset of a context field into the pointer to
 * the context when two branches load it, and the verifier refuses to read by
 * such a pointer. Written as assembly the offset stays in the instruction. */
#define CONTEXT_POINTER(ctx, field) ({                                       \
	void *p__;                                                           \
	asm volatile("%0 = *(u32 *)(%1 + %2)"                                \
		     : "=r"(p__)                                             \
		     : "r"(ctx), "i"(__builtin_offsetof(struct __sk_buff, field))); \
	p__;                                                                 \
})

INLINE void *take(struct cursor *cursor, __u32 size)
{
	void *at = cursor->at;

	if (at + size > cursor->end)
		return NULL;
	cursor->at = at + size;
	return at;
}

/* An IPv4 header with its options; the cursor goes behind them. */
INLINE struct ipv4 *take_ipv4(struct cursor *cursor)
{
	struct ipv4 *ip = take(cursor, sizeof(*ip));
	__u32 size;

	if (!ip)
		return NULL;
	size = (ip->version_ihl & 0xf) * 4;
	if (ip->version_ihl >> 4 != 4 || size < sizeof(*ip))
		return NULL;
	cursor->at = (void *)ip + size;
	return ip;
}

INLINE bool is_icmp_error(__u8 type)
{
	return type == ICMP_UNREACHABLE || type == ICMP_TIME_EXCEEDED ||
	       type == ICMP_PARAMETER_PROBLEM;
}

INLINE bool is_later_fragment(const struct ipv4 *ip)
{
	return ip->fragment & bpf_htons(FRAGMENT_OFFSET);
}

INLINE bool is_first_fragment(const struct ipv4 *ip)
{
	return (ip->fragment & bpf_htons(FRAGMENT_MORE | FRAGMENT_OFFSET)) ==
	       bpf_htons(FRAGMENT_MORE);
}

/* Ports of an ICMP message; turned is for one that is quoted in an error. */
INLINE void icmp_ports(struct tuple *tuple, const struct icmp *icmp, bool turned)
{
	__be16 id = 0;
	bool asks = icmp->type == ICMP_ECHO;

	if (asks || icmp->type == ICMP_ECHO_REPLY)
		id = icmp->id;
	tuple->sport = asks != turned ? id : 0;
	tuple->dport = asks != turned ? 0 : id;
}

#include "fragment.h"

/* What an ICMP error is about. An error whose inside has no ports is opaque. */
INLINE int parse_quoted(struct cursor *cursor, struct packet *packet)
{
	struct tuple *tuple = &packet->tuple;
	struct ipv4 *inner = take_ipv4(cursor);
	struct ports *ports;

	if (!inner)
		return DROP(TRUNCATED);
	if (is_later_fragment(inner))
		return PARSE_OPAQUE;
	ports = take(cursor, 8); /* RFC 792: as much of it is always quoted */
	if (!ports)
		return DROP(TRUNCATED);
	packet->inner = packet->l4 + sizeof(struct icmp);
	packet->inner_l4 = packet->inner + (inner->version_ihl & 0xf) * 4;
	tuple->saddr = inner->daddr;
	tuple->daddr = inner->saddr;
	tuple->proto = inner->proto;
	if (tuple->proto == PROTO_ICMP) {
		icmp_ports(tuple, (void *)ports, true);
	} else if (tuple->proto == PROTO_TCP || tuple->proto == PROTO_UDP) {
		tuple->sport = ports->destination;
		tuple->dport = ports->source;
	} else {
		return PARSE_OPAQUE;
	}
	return 0;
}

INLINE int parse_l4(struct cursor *cursor, struct packet *packet, __u8 at)
{
	struct tuple *tuple = &packet->tuple;
	struct ports *ports = take(cursor, 8);

	if (!ports)
		return DROP(TRUNCATED);
	packet->l4 = at;
	if (packet->proto == PROTO_ICMP) {
		struct icmp *icmp = (void *)ports;

		packet->icmp_type = icmp->type;
		if (is_icmp_error(icmp->type))
			return parse_quoted(cursor, packet);
		icmp_ports(tuple, icmp, false);
		return 0;
	}
	if (packet->proto == PROTO_TCP) {
		if (!take(cursor, TCP_MIN - 8))
			return DROP(TRUNCATED);
		packet->tcp_flags = ((__u8 *)ports)[TCP_FLAGS];
	}
	tuple->sport = ports->source;
	tuple->dport = ports->destination;
	return 0;
}

INLINE int parse(struct __sk_buff *ctx, struct packet *packet)
{
	struct cursor cursor = {
		.at = CONTEXT_POINTER(ctx, data),
		.end = CONTEXT_POINTER(ctx, data_end),
	};
	struct ethernet *eth = take(&cursor, sizeof(*eth));
	struct ipv4 *ip;
	__u32 length, at;
	int rc;

	if (!eth)
		return DROP(INVALID);
	packet->type = eth->type;
	if (eth->type != bpf_htons(ETHERTYPE_IPV4))
		return PARSE_NOT_IPV4;
	ip = take_ipv4(&cursor);
	if (!ip)
		return DROP(TRUNCATED);
	packet->saddr = packet->tuple.saddr = ip->saddr;
	packet->daddr = packet->tuple.daddr = ip->daddr;
	packet->proto = packet->tuple.proto = ip->proto;
	packet->ttl = ip->ttl;
	length = bpf_ntohs(ip->length);
	at = sizeof(*eth) + (ip->version_ihl & 0xf) * 4;
	/* A length of 0 is what a segment above 64 KiB has (BIG TCP). */
	if (length + sizeof(*eth) > ctx->len ||
	    (length + sizeof(*eth) < at && !(!length && ctx->gso_size)))
		return DROP(INVALID);
	if (ip->proto != PROTO_TCP && ip->proto != PROTO_UDP && ip->proto != PROTO_ICMP)
		return PARSE_OPAQUE;
	packet->tcp_flags = ip->proto == PROTO_TCP ? 0 : SEEN;
	if (is_later_fragment(ip))
		return fragment_ports(packet, ip);
	rc = parse_l4(&cursor, packet, at);
	if (!rc && is_first_fragment(ip))
		rc = fragment_remember(packet, ip);
	return rc;
}

/* Enough for all headers of an error about a packet, options on both. */
#define PULL_MAX (sizeof(struct ethernet) + 60 + 8 + 60 + 20)

/* Parses, and where headers are not in the linear part of the buffer fetches
 * them there and parses again. */
__noinline int open_at(struct __sk_buff *ctx, struct packet *packet)
{
	int rc = 0;

	if (!packet)
		return DROP(INVALID);
#pragma clang loop unroll(disable)
	for (int pulled = 0; pulled < 2; pulled++) {
		__u32 linear, whole = ctx->len;

		rc = parse(ctx, packet);
		if (rc != DROP(TRUNCATED) && rc != DROP(INVALID))
			break;
		linear = CONTEXT_POINTER(ctx, data_end) - CONTEXT_POINTER(ctx, data);
		if (linear >= whole || linear >= PULL_MAX || pulled)
			break;
		if (bpf_skb_pull_data(ctx, whole < PULL_MAX ? whole : PULL_MAX))
			return DROP(WRITE);
	}
	return rc;
}

INLINE int open_packet(struct __sk_buff *ctx, struct packet *packet, struct story *story)
{
	int rc;

	__builtin_memset(packet, 0, sizeof(*packet));
	rc = open_at(ctx, packet);
	story->saddr = packet->saddr;
	return rc;
}

/* The packet of nearly all packets: TCP or UDP in one piece, without options,
 * with its headers at hand, in the middle of a flow. Anything else is left to
 * open_packet, which takes three times as long. */
INLINE bool open_common(struct __sk_buff *ctx, struct packet *packet, struct headers *headers,
			struct story *story)
{
	struct cursor cursor = {
		.at = CONTEXT_POINTER(ctx, data),
		.end = CONTEXT_POINTER(ctx, data_end),
	};
	struct ethernet *eth = take(&cursor, sizeof(*eth));
	struct ports *ports;
	struct ipv4 *ip;
	__u32 length;

	if (!eth || eth->type != bpf_htons(ETHERTYPE_IPV4))
		return false;
	ip = take(&cursor, sizeof(*ip));
	if (!ip || ip->version_ihl != 0x45 || /* 20 bytes */
	    ip->fragment & bpf_htons(FRAGMENT_MORE | FRAGMENT_OFFSET))
		return false;
	length = bpf_ntohs(ip->length);
	ports = take(&cursor, TCP_MIN);
	if (!ports || length < sizeof(*ip) + TCP_MIN || length + sizeof(*eth) > ctx->len)
		return false;
	packet->tcp_flags = SEEN;
	if (ip->proto == PROTO_TCP) {
		packet->tcp_flags = ((__u8 *)ports)[TCP_FLAGS];
		if (packet->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST))
			return false;
	} else if (ip->proto != PROTO_UDP) {
		return false;
	}
	headers->ip = ip;
	headers->l4 = ports;
	headers->end = cursor.end;
	packet->l4 = sizeof(*eth) + sizeof(*ip);
	packet->inner = packet->inner_l4 = packet->icmp_type = 0;
	packet->ttl = ip->ttl;
	story->saddr = packet->saddr = packet->tuple.saddr = ip->saddr;
	packet->daddr = packet->tuple.daddr = ip->daddr;
	packet->tuple.proto = ip->proto;
	packet->tuple.sport = ports->source;
	packet->tuple.dport = ports->destination;
	return true;
}
