//go:build linux

package migrate

import (
	"fmt"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// mapInfo is the beginning of struct bpf_map_info in linux/bpf.h.
type mapInfo struct {
	kind, id, keySize, valueSize, maxEntries, flags uint32
	name                                            [16]byte
	ifindex, vmlinuxValueType                       uint32
	netnsDevice, netnsInode                         uint64
	types, keyType, valueType                       uint32
	_                                               uint32
}

// Types are the types of a map's keys and values as the kernel keeps them, nil
// where it has none.
func Types(m *ebpf.Map) (key, value btf.Type, err error) {
	const objGetInfoByFD = 15 // BPF_OBJ_GET_INFO_BY_FD
	var info mapInfo
	attr := struct {
		fd, length uint32
		info       unsafe.Pointer
	}{uint32(m.FD()), uint32(unsafe.Sizeof(info)), unsafe.Pointer(&info)}
	_, _, errno := unix.Syscall(unix.SYS_BPF, objGetInfoByFD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(m)
	if errno != 0 {
		return nil, nil, fmt.Errorf("ask for the types of %v: %w", m, errno)
	}
	if info.types == 0 || info.keyType == 0 || info.valueType == 0 {
		return nil, nil, nil
	}
	handle, err := btf.NewHandleFromID(btf.ID(info.types))
	if err != nil {
		return nil, nil, fmt.Errorf("open the types of %v: %w", m, err)
	}
	defer handle.Close()
	spec, err := handle.Spec(nil)
	if err != nil {
		return nil, nil, fmt.Errorf("read the types of %v: %w", m, err)
	}
	if key, err = spec.TypeByID(btf.TypeID(info.keyType)); err != nil {
		return nil, nil, fmt.Errorf("type of the keys of %v: %w", m, err)
	}
	if value, err = spec.TypeByID(btf.TypeID(info.valueType)); err != nil {
		return nil, nil, fmt.Errorf("type of the values of %v: %w", m, err)
	}
	return key, value, nil
}
