//go:build ignore

/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The programs. Each is a hook, a direction and one step from a header; doc.go
 * has the map of which packet meets which of them. */

#include "kernel.h"
#include "reasons.h"
#include "config.h"
#include "maps.h"
#include "clock.h"
#include "checksum.h"
#include "packet.h"
#include "events.h"
#include "service.h"
#include "flow.h"
#include "rewrite.h"
#include "icmp.h"
#include "balance.h"
#include "nat.h"
#include "deliver.h"
#include "pod.h"
#include "netdev.h"
#include "refuse.h"
#include "socket.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Where most packets are of one kind that is quickly told, it has a lane of its
 * own, and all others a function behind it: what they need would otherwise take
 * the registers of those that do not. Functions that are not static the verifier
 * looks at once, and not again for all that may be true where they are called. */

__noinline int from_pod_any(struct __sk_buff *ctx)
{
	struct story story = {
		.direction = DIRECTION_EGRESS,
		.point = POINT_TO_STACK,
		.state = STATE_UNKNOWN,
	};

	return finish_client(ctx, &story, from_pod_packet(ctx, &story), true);
}

/* Ingress of a pod's lxc device: what the pod sends. */
SEC("tc")
int from_pod(struct __sk_buff *ctx)
{
	struct story story = {
		.direction = DIRECTION_EGRESS,
		.point = POINT_TO_STACK,
	};
	int verdict;

	if (pod_sends_common(ctx, &story, &verdict))
		return finish(ctx, &story, verdict);
	return from_pod_any(ctx);
}

/* Egress of a pod's lxc device: what the node's stack gives it. */
SEC("tc")
int to_pod(struct __sk_buff *ctx)
{
	struct story story = {
		.direction = DIRECTION_INGRESS,
		.point = POINT_TO_ENDPOINT,
		.state = STATE_UNKNOWN,
	};

	return finish(ctx, &story, to_pod_packet(ctx, &story));
}

/* Egress of the device that the node's route for its own pods leads to. */
SEC("tc")
int from_host(struct __sk_buff *ctx)
{
	struct story story = {
		.direction = DIRECTION_EGRESS,
		.point = POINT_TO_ENDPOINT,
		.state = STATE_UNKNOWN,
	};

	int verdict = from_host_packet(ctx, &story);

	if (verdict <= 0)
		return finish(ctx, &story, verdict);
	count(REASON_FORWARDED, story.direction, ctx->len); /* to_pod tells of it */
	return verdict;
}

__noinline int from_netdev_any(struct __sk_buff *ctx)
{
	struct story story = {
		.direction = DIRECTION_INGRESS,
		.point = POINT_TO_STACK,
		.state = STATE_UNKNOWN,
	};

	return finish_client(ctx, &story, from_netdev_packet(ctx, &story), false);
}

/* Ingress of a network device, and of the tunnel's. */
SEC("tc")
int from_netdev(struct __sk_buff *ctx)
{
	struct story story = {
		.direction = DIRECTION_INGRESS,
		.point = POINT_TO_STACK,
	};
	int verdict;

	if (netdev_to_pod_common(ctx, &story, &verdict))
		return finish(ctx, &story, verdict);
	return from_netdev_any(ctx);
}

/* Egress of a network device, and of the tunnel's. */
SEC("tc")
int to_netdev(struct __sk_buff *ctx)
{
	struct story story = {
		.direction = DIRECTION_EGRESS,
		.point = POINT_TO_NETWORK,
		.state = STATE_UNKNOWN,
	};

	return finish(ctx, &story, to_netdev_packet(ctx, &story));
}

/* connect() of TCP and of UDP. */
SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	return socket_balance(ctx);
}

/* sendto() and sendmsg() of UDP that is not connected. */
SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	return socket_balance(ctx);
}

/* recvfrom() and recvmsg() of UDP. */
SEC("cgroup/recvmsg4")
int recvmsg4(struct bpf_sock_addr *ctx)
{
	return socket_reverse(ctx);
}

SEC("cgroup/getpeername4")
int getpeername4(struct bpf_sock_addr *ctx)
{
	return socket_reverse(ctx);
}
