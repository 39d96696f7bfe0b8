/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Balancing where a socket is connected, so that no packet needs it: what the
 * application calls is replaced by a backend before there is a packet. */
#pragma once

#define IPPROTO_MPTCP 262

#define EHOSTUNREACH 113
#define ENOMEM 12

enum {
	SOCKET_REFUSE = 0,
	SOCKET_PROCEED = 1,
};

INLINE __u8 socket_proto(const struct bpf_sock_addr *ctx)
{
	return ctx->protocol == IPPROTO_MPTCP ? PROTO_TCP : ctx->protocol;
}

/* Without bpf_set_retval the call fails with EPERM. */
INLINE int socket_refuse(enum reason reason, int error)
{
	count(reason, DIRECTION_SERVICE, 0);
	if (config.set_retval)
		bpf_set_retval(-error);
	return SOCKET_REFUSE;
}

/* Whether a NodePort can be reached by this address: any node's, and for the
 * node itself also 127.0.0.0/8. */
INLINE bool is_node(struct bpf_sock_addr *ctx, __be32 addr)
{
	__u32 identity;

	if ((addr & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000))
		return bpf_get_netns_cookie(ctx) == config.host_netns;
	identity = identity_of(addr);
	return identity == IDENTITY_HOST || identity == IDENTITY_REMOTE_NODE ||
	       identity == IDENTITY_APISERVER;
}

/* Writes into key under which address the frontend was found. */
INLINE struct frontend *socket_frontend(struct bpf_sock_addr *ctx, struct frontend_key *key)
{
	struct frontend *frontend = frontend_lookup(key->addr, key->port, key->proto, true);

	if (frontend || !is_nodeport(key->port) || !is_node(ctx, key->addr))
		return frontend;
	key->addr = 0;
	return frontend_lookup(0, key->port, key->proto, true);
}

INLINE int socket_balance(struct bpf_sock_addr *ctx)
{
	struct frontend_key key = {
		.addr = ctx->user_ip4,
		.port = ctx->user_port,
		.proto = socket_proto(ctx),
	};
	struct socket_peer peer = { .addr = key.addr, .port = key.port };
	struct socket_key socket = {};
	struct frontend *frontend = socket_frontend(ctx, &key);
	struct asker asker = {};
	struct backend *backend;

	if (!frontend)
		return SOCKET_PROCEED;
	asker.client = bpf_get_netns_cookie(ctx);
	asker.cookie = 1;
	socket.cookie = bpf_get_socket_cookie(ctx);
	/* A UDP socket keeps to one backend as long as there are as many. */
	asker.draw = key.proto == PROTO_UDP ? mix(socket.cookie) : bpf_get_prandom_u32();
	if (!frontend->count)
		return socket_refuse(REASON_SOCK_NO_SLOT, EHOSTUNREACH);
	backend = backend_lookup(backend_select(frontend, &key, &asker, false));
	if (!backend)
		return socket_refuse(REASON_SOCK_NO_BACKEND, EHOSTUNREACH);

	peer.service = frontend->id;
	socket.addr = backend->addr;
	socket.port = backend->port;
	if (bpf_map_update_elem(&sockets, &socket, &peer, BPF_ANY))
		return socket_refuse(REASON_SOCK_REVERSE_FULL, ENOMEM);
	ctx->user_ip4 = backend->addr;
	ctx->user_port = backend->port;
	return SOCKET_PROCEED;
}

/* What the application is told of its peer: the address that it called. */
INLINE int socket_reverse(struct bpf_sock_addr *ctx)
{
	struct socket_key socket = {
		.cookie = bpf_get_socket_cookie(ctx),
		.addr = ctx->user_ip4,
		.port = ctx->user_port,
	};
	struct socket_peer *peer = bpf_map_lookup_elem(&sockets, &socket);
	struct frontend_key key = {};
	struct frontend *frontend;

	if (!peer)
		return SOCKET_PROCEED;
	key.addr = peer->addr;
	key.port = peer->port;
	key.proto = socket_proto(ctx);
	frontend = socket_frontend(ctx, &key);
	if (!frontend || frontend->id != peer->service) {
		bpf_map_delete_elem(&sockets, &socket);
		count(REASON_SOCK_REVERSE_STALE, DIRECTION_SERVICE, 0);
		return SOCKET_PROCEED;
	}
	ctx->user_ip4 = peer->addr;
	ctx->user_port = peer->port;
	return SOCKET_PROCEED;
}
