package topo

import (
	"net/netip"

	"github.com/google/go-cmp/cmp"
)

// compareAddresses lets cmp compare addresses and prefixes by their value.
var compareAddresses = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}
