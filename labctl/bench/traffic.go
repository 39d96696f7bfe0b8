//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// trafficCommand makes this executable the process that a lane goes by: its
// descriptors from firstNamespace on are namespaces, first the client's, then a
// server's each.
const (
	trafficCommand = "traffic"
	firstNamespace = 3
)

// The ports of a server: at the first the client's own thread is the server too,
// at the second a thread of its own sends each byte back. A second lane to the
// same servers has the ports after these.
const (
	connectPort = 8080
	echoPort    = connectPort + 1
	portsOfLane = 2
)

// What a client is asked for.
const (
	askConnect = "connect" // a TCP connection
	askPath    = "path"    // one byte forth and back, with both ends in one thread
	askRTT     = "rtt"     // one byte forth and back, to a thread that waits for it
)

// ioTimeout bounds each call that waits for the other side.
const ioTimeout = 2 * time.Second

// traffic serves in every server's namespace, and then answers each line of in
// ("connect 10.96.0.1:80 100") with the median in nanoseconds. It ends with in.
// Threads are locked and those calls that wait go to the kernel directly, so
// that Go's scheduler has no part in what is measured.
func traffic(args []string, in io.Reader, out io.Writer) error {
	var count, lane int
	if _, err := fmt.Sscan(strings.Join(args, " "), &count, &lane); err != nil || count < 2 {
		return errors.New("traffic: want the number of namespaces, 2 or more, and that of the lane")
	}
	debug.SetGCPercent(-1)
	runtime.GOMAXPROCS(count + 2) // a thread that waits in a raw call keeps its place
	var c client
	for i := 1; i < count; i++ {
		listener, err := serveIn(firstNamespace+i, lane*portsOfLane)
		if err != nil {
			return fmt.Errorf("serve: %w", err)
		}
		c.servers = append(c.servers, listener)
	}
	lines := bufio.NewScanner(in)
	runtime.LockOSThread()
	if err := unix.Setns(firstNamespace, unix.CLONE_NEWNET); err != nil {
		return err
	}
	fmt.Fprintln(out, "ready")
	for lines.Scan() {
		median, err := c.answer(lines.Text())
		if err != nil {
			fmt.Fprintln(out, "error", err)
			continue
		}
		fmt.Fprintln(out, median.Nanoseconds())
	}
	return lines.Err()
}

// client is one end of all connections, and in its thread the other one too.
type client struct {
	servers []int // their listening sockets
}

func (c *client) answer(line string) (time.Duration, error) {
	var what, address string
	var count int
	if _, err := fmt.Sscan(line, &what, &address, &count); err != nil {
		return 0, err
	}
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return 0, err
	}
	var times []time.Duration
	switch what {
	case askConnect:
		times, err = c.connects(to, count)
	case askPath:
		times, err = c.paths(to, count)
	default:
		times, err = roundTrips(to, count)
	}
	if err != nil {
		return 0, err
	}
	return middle(times), nil
}

// connects opens connections one after the other. No thread is woken by one:
// whoever listens looks later.
func (c *client) connects(to netip.AddrPort, count int) ([]time.Duration, error) {
	times := make([]time.Duration, count)
	for i := range times {
		fd, took, err := connect(to)
		if err != nil {
			return nil, err
		}
		times[i] = took
		other, err := c.accept()
		unix.Close(fd)
		if err != nil {
			return nil, err
		}
		unix.Close(other)
	}
	return times, nil
}

// paths lets one thread be both ends: what it sends has arrived when the call
// that sends it returns, so that no thread has to be woken.
func (c *client) paths(to netip.AddrPort, count int) ([]time.Duration, error) {
	fd, _, err := connect(to)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	other, err := c.accept()
	if err != nil {
		return nil, err
	}
	defer unix.Close(other)
	if err := timely(other); err != nil {
		return nil, err
	}
	times := make([]time.Duration, count)
	for i := range times {
		start := time.Now()
		if !writeByte(fd) || !readByte(other) || !writeByte(other) || !readByte(fd) {
			return nil, fmt.Errorf("%s: a byte is lost", to)
		}
		times[i] = time.Since(start)
	}
	return times, nil
}

// accept takes the connection that was just opened, from whichever server it came to.
func (c *client) accept() (int, error) {
	for start := time.Now(); time.Since(start) < ioTimeout; {
		for _, listener := range c.servers {
			fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
			if err == nil {
				return fd, nil
			}
			if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED) {
				return -1, err
			}
		}
	}
	return -1, errors.New("a connection came to no server")
}

// roundTrips sends a byte to a thread that waits for it, and waits for it itself.
func roundTrips(to netip.AddrPort, count int) ([]time.Duration, error) {
	fd, _, err := connect(to)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	times := make([]time.Duration, count)
	for i := range times {
		start := time.Now()
		if !writeByte(fd) || !readByte(fd) {
			return nil, fmt.Errorf("%s does not answer", to)
		}
		times[i] = time.Since(start)
	}
	return times, nil
}

// connect returns a connection, and how long the call took. Its close is a
// reset, which leaves neither side's port in use.
func connect(to netip.AddrPort) (fd int, took time.Duration, err error) {
	if fd, err = tcpSocket(); err != nil {
		return -1, 0, err
	}
	address := rawAddress(to)
	start := time.Now()
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&address)), unix.SizeofSockaddrInet4)
	took = time.Since(start)
	if errno != 0 {
		unix.Close(fd)
		return -1, 0, fmt.Errorf("connect to %s: %w", to, errno)
	}
	return fd, took, nil
}

func middle(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

func rawAddress(to netip.AddrPort) unix.RawSockaddrInet4 {
	port := to.Port()
	return unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port<<8 | port>>8, Addr: to.Addr().As4()}
}

// tcpSocket makes a socket without delays, on which nothing waits forever.
func tcpSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	return fd, errors.Join(timely(fd), unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
}

func timely(fd int) error {
	limit := &unix.Timeval{Sec: int64(ioTimeout.Seconds())}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, limit),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, limit))
}

func writeByte(fd int) bool {
	b := [1]byte{'x'}
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&b)), 1)
	return errno == 0 && n == 1
}

func readByte(fd int) bool {
	var b [1]byte
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b)), 1)
	return errno == 0 && n == 1
}

// serveIn listens on both ports of a namespace, and returns the socket of the
// first, which never waits.
func serveIn(namespace, beyond int) (int, error) {
	var first int
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		err := unix.Setns(namespace, unix.CLONE_NEWNET)
		if err == nil {
			first, err = listenOn(connectPort+beyond, unix.SOCK_NONBLOCK)
		}
		second := -1
		if err == nil {
			second, err = listenOn(echoPort+beyond, 0)
		}
		ready <- err
		for err == nil {
			err = echo(second)
		}
	}()
	return first, <-ready
}

// echo serves one connection.
func echo(listener int) error {
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := timely(fd); err != nil {
		return err
	}
	for readByte(fd) && writeByte(fd) {
	}
	return nil
}

func listenOn(port, flags int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
		return -1, fmt.Errorf("port %d: %w", port, err)
	}
	return fd, unix.Listen(fd, unix.SOMAXCONN)
}

// trafficMain is the process of a lane.
func trafficMain(args []string, stderr io.Writer) int {
	if err := traffic(args, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(stderr, err)
		return exitTrouble
	}
	return exitOK
}
