/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What differs from node to node and from kernel to kernel. The loader writes
 * it before the verifier looks, so a branch that a node does not need is dead
 * code there: neither run nor, where the kernel lacks its helper, refused. */
#pragma once

struct node_config {
	__u64 host_netns;    /* netns cookie of the node itself */
	__be32 pod_cidr;     /* this node's pods */
	__be32 pod_mask;
	__be32 native_cidr;  /* never masqueraded: routed as it is */
	__be32 native_mask;
	__be32 loopback;     /* stands for a pod that reached itself by a service */
	__u32 maglev_size;   /* entries of each Maglev table, the same on all nodes */
	__u32 maglev_seed;   /* of the hash, the same on all nodes */
	__u16 nodeport_min;  /* host byte order, both inclusive */
	__u16 nodeport_max;
	__u8 masquerade;     /* pods that leave the native CIDR take the node's address */
	__u8 kernel_ctx;     /* bpf_cast_to_kern_ctx exists: Linux 6.2 */
	__u8 set_retval;     /* bpf_set_retval exists: Linux 5.18 */
	__u8 tick_shift;     /* of jiffies, see clock.h */
	/* Ages of flows in ticks. */
	__u32 age_tcp;
	__u32 age_syn;
	__u32 age_any;
	__u32 age_closing;
	__u32 pad;
};

volatile const struct node_config config = {};

INLINE bool is_local_pod(__be32 addr)
{
	return (addr & config.pod_mask) == config.pod_cidr;
}

INLINE bool is_native(__be32 addr)
{
	return (addr & config.native_mask) == config.native_cidr;
}

INLINE bool is_nodeport(__be16 port)
{
	__u16 host = bpf_ntohs(port);

	return host >= config.nodeport_min && host <= config.nodeport_max;
}
