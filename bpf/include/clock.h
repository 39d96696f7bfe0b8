/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
#pragma once

/* A tick is about a second: jiffies without their lowest bits, which the JIT
 * reads with one instruction where asking for the time costs as much as half a
 * hash lookup. config.tick_shift says how many bits, and is 0 where the loader
 * could not tell how long a jiffy is; then a tick is 2^30 ns. */
INLINE __u32 ticks(void)
{
	if (config.tick_shift)
		return bpf_jiffies64() >> config.tick_shift;
	return bpf_ktime_get_coarse_ns() >> 30;
}
