/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* From a frontend to one of its backends. */
#pragma once

INLINE struct frontend *frontend_lookup(__be32 addr, __be16 port, __u8 proto, bool in_cluster)
{
	struct frontend_key key = { .addr = addr, .port = port, .proto = proto };
	struct frontend *found = bpf_map_lookup_elem(&frontends, &key);

	if (!found || !in_cluster || !(found->flags & FRONTEND_TWO_SCOPES))
		return found;
	key.scope = SCOPE_INTERNAL;
	return bpf_map_lookup_elem(&frontends, &key);
}

INLINE struct backend *backend_lookup(__u32 id)
{
	struct backend *backend = bpf_map_lookup_elem(&backends, &id);

	return backend && backend->addr ? backend : NULL;
}

/* Who asks, for what a choice of a backend may depend on. */
struct asker {
	__u64 client;   /* for affinity: an address, or a netns cookie */
	__u32 draw;     /* random, or the same for all that shall go together */
	__be32 addr;    /* for Maglev */
	__be16 port;
	__u8 cookie;
};

/* Mixes well enough that neighbouring ports spread over a whole table, and is
 * the same on all nodes (the finalizer of MurmurHash3). */
INLINE __u32 mix(__u32 hash)
{
	hash ^= hash >> 16;
	hash *= 0x85ebca6b;
	hash ^= hash >> 13;
	hash *= 0xc2b2ae35;
	hash ^= hash >> 16;
	return hash;
}

/* The client's port counts only where requests of one client may part. */
INLINE __u32 maglev_hash(const struct asker *asker, const struct frontend_key *key, bool affine)
{
	__u32 hash = mix(config.maglev_seed ^ asker->addr);

	hash = mix(hash ^ key->addr);
	return mix(hash ^ ((__u32)key->port << 16 | (affine ? 0 : asker->port)) ^ key->proto);
}

INLINE __u32 maglev_backend(const struct frontend *frontend, __u32 hash)
{
	__u32 id = frontend->id, index, *backend;
	void *table = bpf_map_lookup_elem(&maglev, &id);

	if (!table || !config.maglev_size)
		return 0;
	index = hash % config.maglev_size;
	backend = bpf_map_lookup_elem(table, &index);
	return backend ? *backend : 0;
}

INLINE __u32 slot_backend(const struct frontend *frontend, __u32 draw)
{
	__u32 index = frontend->first + draw % frontend->count;
	struct slot *slot = bpf_map_lookup_elem(&slots, &index);

	return slot && slot->service == frontend->id ? slot->backend : 0;
}

INLINE struct affinity_key affinity_key(const struct frontend *frontend, const struct asker *asker)
{
	struct affinity_key key = {
		.client = asker->client,
		.service = frontend->id,
		.cookie = asker->cookie,
	};
	return key;
}

/* The backend that this client had last, if it may have it again. */
INLINE __u32 affine_backend(const struct frontend *frontend, const struct asker *asker)
{
	struct affinity_key key = affinity_key(frontend, asker);
	struct affinity_match_key match = { .service = frontend->id };
	struct affinity *affinity = bpf_map_lookup_elem(&affinities, &key);
	__u32 now = ticks();

	if (!affinity || now - affinity->seen > frontend->affinity)
		return 0;
	match.backend = affinity->backend;
	if (!bpf_map_lookup_elem(&affinity_match, &match))
		return 0;
	affinity->seen = now;
	return match.backend;
}

INLINE void affinity_remember(const struct frontend *frontend, const struct asker *asker, __u32 backend)
{
	struct affinity_key key = affinity_key(frontend, asker);
	struct affinity value = { .backend = backend, .seen = ticks() };

	bpf_map_update_elem(&affinities, &key, &value, BPF_ANY);
}

/* A backend id, or 0 where there is none to be had. */
INLINE __u32 backend_select(const struct frontend *frontend, const struct frontend_key *key,
			    const struct asker *asker, bool consistent)
{
	bool affine = frontend->flags & FRONTEND_AFFINITY;
	__u32 id = 0;

	if (!frontend->count)
		return 0;
	if (affine) {
		id = affine_backend(frontend, asker);
		if (id && backend_lookup(id))
			return id;
	}
	id = 0;
	if (consistent && frontend->algorithm == ALGORITHM_MAGLEV)
		id = maglev_backend(frontend, maglev_hash(asker, key, affine));
	if (!id)
		id = slot_backend(frontend, asker->draw);
	if (id && affine)
		affinity_remember(frontend, asker, id);
	return id;
}
