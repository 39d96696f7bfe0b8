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
#define HEADLINE(type, reason, state, direction) \
	((type) << 24 | ((reason) & 0xff) << 16 | (state) << 8 | (direction))

/* Not inlined: it is the cold path, with a stack frame of its own. */
__noinline int tell(struct __sk_buff *ctx, __be32 saddr, __be32 daddr, __u32 headline)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	__u32 captured = ctx->len;

	if (!event)
		return 0;
	event->time = bpf_ktime_get_ns();
	event->ifindex = ctx->ifindex;
	event->length = captured;
	event->hash = ctx->hash;
	event->source_identity = identity_of(saddr);
	event->destination_identity = identity_of(daddr);
	event->orig_addr = saddr;
	event->endpoint = endpoint_id(daddr);
	if (!event->endpoint)
		event->endpoint = endpoint_id(saddr);
	event->type = headline >> 24;
	event->reason = headline >> 16;
	event->state = headline >> 8;
	event->direction = headline;
	if (captured > EVENT_HEAD)
		captured = EVENT_HEAD;
	event->captured = 0;
	__builtin_memset(event->head, 0, sizeof(event->head));
	if (captured >= 1 && captured <= EVENT_HEAD && /* the verifier wants both said */
	    !bpf_skb_load_bytes(ctx, 0, event->head, captured))
		event->captured = captured;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

/* The end of every tc program: a verdict of 0 and above is carried out, one
 * below is a reason to drop. */
INLINE int finish(struct __sk_buff *ctx, const struct story *story, int verdict)
{
	__u32 level = listening();

	if (verdict < 0) {
		count(-verdict, story->direction, ctx->len);
		if (level >= LISTEN_DROPS)
			tell(ctx, story->saddr, story->daddr,
			     HEADLINE(EVENT_DROP, -verdict, story->state, story->direction));
		return TC_ACT_SHOT;
	}
	count(REASON_FORWARDED, story->direction, ctx->len);
	if (level >= LISTEN_ALL || (level == LISTEN_FLOWS && story->notable))
		tell(ctx, story->saddr, story->daddr,
		     HEADLINE(EVENT_TRACE, story->point, story->state, story->direction));
	return verdict ? verdict : TC_ACT_UNSPEC;
}
