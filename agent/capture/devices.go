//go:build linux

package capture

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// names are the devices' names by their numbers. A name is asked for once for
// each look at the queue, so one that changed is soon known.
type names struct {
	fd    int
	known map[int]string
	fresh map[int]bool
}

func (n *names) forget() { clear(n.fresh) }

func (n *names) of(index int) string {
	if n.fresh[index] {
		return n.known[index]
	}
	name, err := deviceName(n.fd, index)
	if err != nil {
		name = n.known[index] // it went after the packet had passed
	}
	if name == "" {
		return "if" + strconv.Itoa(index)
	}
	n.known[index], n.fresh[index] = name, true
	return name
}

// request is struct ifreq: what netdevice(7) asks about a device.
type request struct {
	name  [unix.IFNAMSIZ]byte
	value [24]byte
}

// ask asks in the namespace of a socket, which need not be that of the calling thread.
func (r *request) ask(fd int, about uint) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(about), uintptr(unsafe.Pointer(r)))
	if errno != 0 {
		return errno
	}
	return nil
}

func (r *request) index() *int32 { return (*int32)(unsafe.Pointer(&r.value)) }

func deviceName(fd, index int) (string, error) {
	var r request
	*r.index() = int32(index)
	err := r.ask(fd, unix.SIOCGIFNAME)
	return unix.ByteSliceToString(r.name[:]), err
}

func deviceIndex(fd int, name string) (int, error) {
	r := named(name)
	err := r.ask(fd, unix.SIOCGIFINDEX)
	return int(*r.index()), err
}

// deviceHardware is the ARPHRD_ number of a device.
func deviceHardware(fd int, name string) (uint16, error) {
	r := named(name)
	err := r.ask(fd, unix.SIOCGIFHWADDR)
	return *(*uint16)(unsafe.Pointer(&r.value)), err
}

func named(name string) request {
	var r request
	copy(r.name[:unix.IFNAMSIZ-1], name)
	return r
}
