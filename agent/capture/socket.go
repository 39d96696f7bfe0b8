//go:build linux

package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
)

const (
	defaultQueue = 8 << 20
	// controlSpace holds the time and struct tpacket_auxdata.
	controlSpace = 128
	// loopback is the index of lo in every namespace.
	loopback = 1
	// maxTaken is how many packets one look at the queue takes, so that Stop is
	// heard in a flood too.
	maxTaken = 4096
	// maxFailures of one look at the queue end it; the poller comes back.
	maxFailures = 16
	// retry is the pause after an error of the poller.
	retry = time.Millisecond
)

// Options say what a [Socket] sees.
type Options struct {
	// Devices by name; all where there are none. They may come, go, and come again.
	Devices []string
	// Filter is a program that the kernel runs on every packet, from the link
	// layer's header on (from the network layer's where Cooked is set); it
	// returns how many bytes to keep. Without one all packets are taken.
	Filter []bpf.RawInstruction
	// SnapLength is how much of a packet is kept, in bytes; 0 is api.MaxSnapLength.
	SnapLength int
	// QueueSize is what the kernel keeps of packets that nobody has taken yet, in
	// bytes by its own accounting; 0 is 8 MiB, which hold several thousand packets.
	QueueSize int
	// Cooked packets begin at the network layer's header.
	Cooked bool
}

// Packet is one packet passing one device. Data holds until the next one.
type Packet struct {
	// Time is the kernel's, when the packet came in or went out.
	Time time.Time
	// Index and Device are the device's number and its name; one that vanished
	// before it could be asked is called by its number.
	Index  int
	Device string
	// Kind is PACKET_HOST, PACKET_BROADCAST, PACKET_MULTICAST, PACKET_OTHERHOST
	// or PACKET_OUTGOING of packet(7).
	Kind uint8
	// Hardware is the device's ARPHRD_ number.
	Hardware uint16
	// Protocol is the packet's ETH_P_ number.
	Protocol uint16
	// Length is how long the packet was, and Data what was kept of it.
	Length int
	Data   []byte
}

// Socket captures packets of one network namespace. [Socket.Run] is called once;
// [Socket.Stop] may be called at any time, and more than once.
type Socket struct {
	options Options
	file    *os.File
	conn    syscall.RawConn
	fd      int
	aim     *aim

	packet  Packet
	names   names
	buffer  []byte
	oob     [controlSpace]byte
	from    unix.RawSockaddrLinklayer
	vector  unix.Iovec
	message unix.Msghdr
}

// Open begins to capture in the namespace of the calling thread: every packet
// that passes after it has returned is seen. It needs CAP_NET_RAW. An error
// that matches unix.EINVAL is one of the filter.
func Open(o Options) (*Socket, error) {
	if o.SnapLength == 0 {
		o.SnapLength = api.MaxSnapLength
	}
	if o.QueueSize == 0 {
		o.QueueSize = defaultQueue
	}
	kind := unix.SOCK_RAW
	if o.Cooked {
		kind = unix.SOCK_DGRAM
	}
	// On no protocol it receives nothing, until it is set up.
	fd, err := unix.Socket(unix.AF_PACKET, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s := &Socket{options: o, file: os.NewFile(uintptr(fd), "packets"), fd: fd, buffer: make([]byte, o.SnapLength)}
	s.names = names{fd: fd, known: map[int]string{}, fresh: map[int]bool{}}
	s.vector.Base = &s.buffer[0]
	s.vector.SetLen(len(s.buffer))
	s.message = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&s.from)), Iov: &s.vector, Control: &s.oob[0]}
	s.message.SetIovlen(1)
	if err := s.setUp(); err != nil {
		s.close()
		return nil, err
	}
	time.Sleep(stampDelay)
	return s, nil
}

// stampDelay is for the kernel to begin to stamp packets as they pass, which it
// does in the background (net_enable_timestamp in net/core/dev.c). Until then a
// packet gets the time when it is read, and two of one packet are out of order.
const stampDelay = 5 * time.Millisecond

func (s *Socket) setUp() (err error) {
	if s.conn, err = s.file.SyscallConn(); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, s.options.QueueSize); err != nil {
		// Without CAP_NET_ADMIN the administrator's limit holds.
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, s.options.QueueSize); err != nil {
			return os.NewSyscallError("set the buffer size", err)
		}
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, 1); err != nil {
		return os.NewSyscallError("set SO_TIMESTAMPNS_NEW", err)
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return os.NewSyscallError("set PACKET_AUXDATA", err)
	}
	if s.aim, err = newAim(s.fd, s.options); err != nil {
		return err
	}
	return os.NewSyscallError("bind", unix.Bind(s.fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL)}))
}

func (s *Socket) close() {
	s.aim.close()
	_ = s.file.Close()
}

// Run hands out packets until Stop is called, and then what was captured before
// that; idle, where it is not nil, is called whenever there are no more for now.
// It ends early with the first error of either. The socket is closed when it returns.
func (s *Socket) Run(take func(*Packet) error, idle func() error) (api.CaptureCounts, error) {
	defer s.close()
	err := s.run(take, idle)
	if err == nil {
		// Without this the last look at the queue might have no end.
		s.aim.end()
		for more := true; more && err == nil; {
			more, err = s.drain(take)
		}
	}
	var counts api.CaptureCounts
	if stats, failed := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); failed == nil {
		counts = api.CaptureCounts{Received: uint64(stats.Packets), Dropped: uint64(stats.Drops)}
	}
	return counts, err
}

func (s *Socket) run(take func(*Packet) error, idle func() error) error {
	for {
		var taken error
		err := s.conn.Read(func(uintptr) (some bool) {
			some, taken = s.drain(take)
			return some || taken != nil
		})
		switch {
		case taken != nil:
			return taken
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, os.ErrClosed):
			return nil
		case err != nil:
			time.Sleep(retry) // the poller reports an error of the socket: a device went down
		}
		if idle != nil {
			if err := idle(); err != nil {
				return err
			}
		}
	}
}

// Stop lets Run come to its end.
func (s *Socket) Stop() { _ = s.file.SetReadDeadline(time.Unix(1, 0)) }

// drain takes what is queued, and says whether there was anything.
func (s *Socket) drain(take func(*Packet) error) (some bool, err error) {
	s.names.forget()
	for taken, failures := 0, 0; taken < maxTaken && failures < maxFailures; {
		switch errno := s.receive(); errno {
		case 0:
			some = true
			taken++
			if err := take(&s.packet); err != nil {
				return true, err
			}
		case unix.EAGAIN:
			return some, nil
		default:
			failures++ // a device went down, which ends nothing
		}
	}
	return some, nil
}

// receive takes one packet off the queue, without memory of its own: there may
// be a hundred thousand a second.
func (s *Socket) receive() unix.Errno {
	s.message.Namelen = uint32(unsafe.Sizeof(s.from))
	s.message.SetControllen(len(s.oob))
	n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.message)), 0)
	if errno != 0 {
		return errno
	}
	p := &s.packet
	*p = Packet{
		Index: int(s.from.Ifindex), Kind: s.from.Pkttype, Hardware: s.from.Hatype, Protocol: bigEndian(s.from.Protocol),
		Length: int(n), Data: s.buffer[:n],
	}
	p.Device = s.names.of(p.Index)
	p.readControl(s.oob[:s.message.Controllen])
	return 0
}

// readControl reads the time and the length of a packet that was cut.
func (p *Packet) readControl(oob []byte) {
	const lengthOffset = 4 // of tp_len in struct tpacket_auxdata
	for len(oob) >= unix.SizeofCmsghdr {
		header, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return
		}
		oob = rest
		switch {
		case header.Level == unix.SOL_SOCKET && header.Type == unix.SO_TIMESTAMPNS_NEW && len(data) >= 16:
			p.Time = time.Unix(int64(binary.NativeEndian.Uint64(data)), int64(binary.NativeEndian.Uint64(data[8:])))
		case header.Level == unix.SOL_PACKET && header.Type == unix.PACKET_AUXDATA && len(data) >= lengthOffset+4:
			p.Length = max(p.Length, int(binary.NativeEndian.Uint32(data[lengthOffset:])))
		}
	}
}

// Attach puts a classic BPF program in front of a socket's receive queue. An
// error that matches unix.EINVAL is one of the program.
func Attach(fd int, program []bpf.RawInstruction) error {
	filter := make([]unix.SockFilter, len(program))
	for i, r := range program {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err != nil {
		return fmt.Errorf("attach the filter of %d instructions: %w", len(program), err)
	}
	return nil
}

// bigEndian turns a number round for a field that the kernel wants in network
// order, and back.
func bigEndian(n uint16) uint16 {
	return binary.NativeEndian.Uint16([]byte{byte(n >> 8), byte(n)})
}
