package remote

import "time"

// sizeChanges tells when the terminal may have another size. Windows has no
// signal for it.
func sizeChanges() (<-chan time.Time, func()) {
	tick := time.NewTicker(time.Second / 2)
	return tick.C, tick.Stop
}
