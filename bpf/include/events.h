/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Counters for all, and events for whoever listens. */
#pragma once

INLINE void count(__u32 reason, __u32 direction, __u64 bytes)
{
	__u32 key = (reason & (REASON_COUNT - 1)) * 4 + direction;
	struct metric *metric = bpf_map_lookup_elem(&metrics, &key);

	if (metric) { /* per CPU, and not preempted by itself: no atomics */
		metric->packets++;
		metric->bytes += bytes;
	}
}

INLINE __u32 listening(void)
{
	__u32 key = 0;
	struct setting *current = bpf_map_lookup_elem(&settings, &key);

	return current ? current->listen : LISTEN_NOBODY;
}

INLINE __be16 tunnel_port(void)
{
	__u32 key = 0;
	struct setting *current = bpf_map_lookup_elem(&settings, &key);

	return current ? current->tunnel_port : 0;
}

INLINE __u32 identity_of(__be32 addr)
{
	struct prefix key = { .bits = 32, .addr = addr };
	struct remote *found = bpf_map_lookup_elem(&ipcache, &key);

	return found ? found->identity : IDENTITY_WORLD;
}

INLINE __u32 endpoint_id(__be32 addr)
{
	__u32 *id;

	if (!is_local_pod(addr))
		return 0;
	id = bpf_map_lookup_elem(&addresses, &addr);
	return id ? *id : 0;
}

/* What an event says besides of the packet, in one register. */
#define HEADLINE(type, reason, story)                                          \
	((type) << 24 | ((reason) & 0xff) << 16 | (story)->state << 8 |         \
	 ((story)->notable ? 0x80 : 0) | (story)->direction)

/* Who is behind a device. */
struct sender {
	__u32 ifindex;
	__u32 id;
	__u32 identity;
};

static long is_behind(void *map __attribute__((unused)), const __u32 *id,
		      struct endpoint *endpoint, struct sender *sender)
{
	if (!endpoint->addr || endpoint->ifindex != sender->ifindex)
		return 0;
	sender->id = *id;
	sender->identity = endpoint->identity;
	return 1;
}

/* Who sends and who gets it: the one by the source that the packet came with,
 * the other by the destination that it leaves with. */
INLINE void tell_ends(struct __sk_buff *ctx, struct event *event, __be32 source)
{
	__be32 destination = 0;

	if (ctx->protocol == bpf_htons(ETHERTYPE_IPV4))
		bpf_skb_load_bytes(ctx, sizeof(struct ethernet) + __builtin_offsetof(struct ipv4, daddr),
				   &destination, sizeof(destination));
	event->orig_addr = source;
	event->source_identity = identity_of(source);
	event->destination_identity = identity_of(destination);
	event->endpoint = endpoint_id(destination);
	if (!event->endpoint)
		event->endpoint = endpoint_id(source);
}

/* Not inlined: it is the cold path, with a stack frame of its own. source is the
 * packet's before any translation. */
__noinline int tell(struct __sk_buff *ctx, __be32 source, __u32 headline)
{
	struct sender sender = { .ifindex = ctx->ifindex };
	__u32 captured = ctx->len, but_one;
	struct event *event;

	/* A false source tells nothing of who sent it; his device does. */
	if (headline >> 16 == (EVENT_DROP << 8 | REASON_INVALID_SOURCE))
		bpf_for_each_map_elem(&endpoints, is_behind, &sender, 0);
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return 0;
	event->time = bpf_ktime_get_ns();
	event->ifindex = ctx->ifindex;
	event->length = captured;
	event->hash = bpf_get_hash_recalc(ctx);
	event->type = headline >> 24;
	event->reason = headline >> 16;
	event->state = headline >> 8;
	event->direction = headline & 0x7f;
	event->notable = headline >> 7 & 1;
	tell_ends(ctx, event, source);
	if (sender.id) {
		event->source_identity = sender.identity;
		event->endpoint = sender.id;
	}
	if (captured > EVENT_HEAD)
		captured = EVENT_HEAD;
	event->captured = 0;
	__builtin_memset(event->head, 0, sizeof(event->head));
	/* The verifier wants to see that it is not 0. That of Linux 6.1 does not learn
	 * it from a comparison with 0, so the compiler is not to make one of this. */
	but_one = captured - 1;
	asm volatile("" : "+r"(but_one));
	if (but_one < EVENT_HEAD && !bpf_skb_load_bytes(ctx, 0, event->head, but_one + 1))
		event->captured = captured;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* A packet that goes no further. */
INLINE void finish_dropped(struct __sk_buff *ctx, const struct story *story, __u32 reason)
{
	count(reason, story->direction, ctx->len);
	if (listening() >= LISTEN_DROPS)
		tell(ctx, story->saddr, HEADLINE(EVENT_DROP, reason, story));
}

/* The end of every tc program: a verdict of 0 and above is carried out, one
 * below is a reason to drop. */
INLINE int finish(struct __sk_buff *ctx, const struct story *story, int verdict)
{
	__u32 level;

	if (verdict < 0) {
		finish_dropped(ctx, story, -verdict);
		return TC_ACT_SHOT;
	}
	level = listening();
	count(REASON_FORWARDED, story->direction, ctx->len);
	if (level >= LISTEN_ALL || (level == LISTEN_FLOWS && story->notable))
		tell(ctx, story->saddr, HEADLINE(EVENT_TRACE, story->point, story));
	return verdict ? verdict : TC_ACT_UNSPEC;
}
