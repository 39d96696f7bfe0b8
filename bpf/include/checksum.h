/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* Incremental checksums, RFC 1624. One's complement sums do not care for byte
 * order as long as all of it is the same; here all of it is as on the wire. */
#pragma once

/* Adds to diff that a 32-bit, or 16-bit, field went from old to new. */
INLINE __u64 diff32(__u64 diff, __u32 old, __u32 new)
{
	return diff + (__u32)~old + new;
}

INLINE __u64 diff16(__u64 diff, __u16 old, __u16 new)
{
	return diff + (__u16)~old + new;
}

INLINE __u16 fold(__u64 sum)
{
	sum = (sum >> 32) + (__u32)sum;
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return sum;
}

/* Equation 3 of the RFC: HC' = ~(~HC + ~m + m'). */
INLINE __u16 checksum_apply(__u16 check, __u64 diff)
{
	return ~fold(diff + (__u16)~check);
}

/* A field left to the device to finish holds the sum of the pseudo header, not
 * its complement. */
INLINE __u16 checksum_apply_partial(__u16 check, __u64 diff)
{
	return fold(diff + check);
}
