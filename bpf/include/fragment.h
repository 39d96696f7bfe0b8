/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Only the first fragment of a datagram has ports; the others find them here.
 * Where a later one overtakes the first it cannot be told where it belongs. */
#pragma once

INLINE struct fragment_key fragment_key(const struct ipv4 *ip)
{
	struct fragment_key key = {
		.saddr = ip->saddr,
		.daddr = ip->daddr,
		.id = ip->id,
		.proto = ip->proto,
	};
	return key;
}

INLINE int fragment_remember(const struct packet *packet, const struct ipv4 *ip)
{
	struct fragment_key key = fragment_key(ip);
	struct fragment value = {
		.sport = packet->tuple.sport,
		.dport = packet->tuple.dport,
	};

	/* The ports of a quoted packet are not those of this one. */
	if (is_error(packet))
		return 0;
	if (bpf_map_update_elem(&fragments, &key, &value, BPF_ANY))
		return DROP(FRAGMENT_FULL);
	return 0;
}

INLINE int fragment_ports(struct packet *packet, const struct ipv4 *ip)
{
	struct fragment_key key = fragment_key(ip);
	struct fragment *found = bpf_map_lookup_elem(&fragments, &key);

	if (!found)
		return DROP(FRAGMENT_NOT_FOUND);
	packet->tuple.sport = found->sport;
	packet->tuple.dport = found->dport;
	return 0;
}
