/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Why a packet was dropped, or a socket call refused. Numbers are Cilium's
 * (pkg/monitor/api), so that its texts and its users' habits fit; from 130 on
 * it is a dropped packet. */
#pragma once

enum reason {
	REASON_FORWARDED = 0,
	REASON_SOCK_NO_SLOT = 5,
	REASON_SOCK_NO_BACKEND = 6,
	REASON_SOCK_REVERSE_FULL = 7,
	REASON_SOCK_REVERSE_STALE = 8,
	REASON_FRAGMENT = 9,
	REASON_FRAGMENT_FULL = 10,
	REASON_INVALID_SOURCE = 132,
	REASON_INVALID = 134,
	REASON_TRUNCATED = 135,
	REASON_UNKNOWN_PROTOCOL = 137,
	REASON_UNSUPPORTED_L3 = 139,
	REASON_WRITE = 141,
	REASON_UNROUTABLE = 151,
	REASON_CSUM_L3 = 153,
	REASON_CSUM_L4 = 154,
	REASON_FLOW_FULL = 155,
	REASON_NO_BACKEND = 158,
	REASON_UNKNOWN_FLOW = 163,
	REASON_NO_NAT_PORT = 167,
	REASON_NAT_PROTOCOL = 168,
	REASON_CLUSTER_IP = 174,
	REASON_FRAGMENT_NOT_FOUND = 175,
	REASON_COUNT = 256,
};

/* A step of the datapath returns 0, or the reason with its sign turned. */
#define DROP(reason) (-(int)REASON_##reason)

/* Both as Cilium counts them; SERVICE is its word for the socket hooks. */
enum direction {
	DIRECTION_INGRESS = 1,
	DIRECTION_EGRESS = 2,
	DIRECTION_SERVICE = 3,
};

/* Where a packet was seen; Cilium's numbers. */
enum point {
	POINT_TO_ENDPOINT = 0,
	POINT_TO_HOST = 2,
	POINT_TO_STACK = 3,
	POINT_TO_OVERLAY = 4,
	POINT_FROM_ENDPOINT = 5,
	POINT_FROM_NETWORK = 10,
	POINT_TO_NETWORK = 11,
};
