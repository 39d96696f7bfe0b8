//go:build linux

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lane is a way from a client to its servers: a process of its own with its
// sockets in their namespaces. It ends when it is closed, or when the bench ends.
type lane struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// newLane starts the process, in a cgroup where one is given: socket hooks know
// the client's sockets by it. Lanes to the same servers have different numbers.
func newLane(cgroup string, number int, client *os.File, servers []*os.File) (*lane, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	l := &lane{cmd: exec.Command(self, trafficCommand, strconv.Itoa(1+len(servers)), strconv.Itoa(number))}
	// Signals of the scheduler would interrupt calls that wait.
	l.cmd.Env = append(os.Environ(), "GODEBUG=asyncpreemptoff=1")
	l.cmd.Stderr = os.Stderr
	l.cmd.ExtraFiles = append([]*os.File{client}, servers...)
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is the bench's to tidy up after
	if cgroup != "" {
		dir, err := os.Open(cgroup)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		l.cmd.SysProcAttr.UseCgroupFD, l.cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	l.out = bufio.NewScanner(out)
	if err := l.cmd.Start(); err != nil {
		return nil, err
	}
	if !l.out.Scan() || l.out.Text() != "ready" {
		return nil, errors.Join(errors.New("the process of a lane does not start"), l.close())
	}
	return l, nil
}

// ask returns the median in seconds.
func (l *lane) ask(ctx context.Context, what string, to netip.AddrPort, count int) (float64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	fmt.Fprintln(l.in, what, to, count)
	if !l.out.Scan() {
		return 0, errors.New("the process of a lane is gone")
	}
	ns, err := strconv.ParseInt(l.out.Text(), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s %s: %s", what, to, strings.TrimPrefix(l.out.Text(), "error "))
	}
	return time.Duration(ns).Seconds(), nil
}

func (l *lane) close() error {
	return errors.Join(l.in.Close(), l.cmd.Wait())
}

// plain is a node and its pods without an agent: namespaces joined by plain
// pairs of veth, between which the node's stack routes. They have no names, and
// are gone when the files are closed, or when the bench ends.
type plain struct {
	node, client *os.File
	servers      []*os.File
}

// The addresses in a plain node, as a lab has them.
var (
	plainGateway = netip.MustParseAddr("172.20.0.1")
	plainClient  = netip.MustParseAddr("172.20.0.10")
	plainServer  = netip.MustParseAddr("172.20.0.20") // the first one; the others follow
)

// serversPerLane is how many backends a service has.
const serversPerLane = 3

func newPlain() (*plain, error) {
	p := &plain{}
	err := onThread(func() error {
		var err error
		if p.node, err = newNamespace(); err != nil {
			return err
		}
		for _, name := range []string{"ip_forward", "conf/all/rp_filter", "conf/default/rp_filter"} {
			value := "0"
			if name == "ip_forward" {
				value = "1"
			}
			if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0); err != nil {
				return err
			}
		}
		socket, err := openRtnetlink()
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		var b batch
		b.request(unix.RTM_SETLINK, 0, linkHeader(loopback, true))
		b.address(floorLink{index: loopback, address: netip.PrefixFrom(plainGateway, 32)})
		if err := b.send(socket); err != nil {
			return err
		}
		if p.client, err = plainPod(p.node, 0, plainClient); err != nil {
			return err
		}
		address := plainServer
		for i := range serversPerLane {
			server, err := plainPod(p.node, 1+i, address)
			if err != nil {
				return err
			}
			p.servers = append(p.servers, server)
			address = address.Next()
		}
		return nil
	})
	if err != nil {
		p.close()
		return nil, fmt.Errorf("plain node: %w", err)
	}
	return p, nil
}

func (p *plain) close() {
	for _, f := range append([]*os.File{p.node, p.client}, p.servers...) {
		if f != nil {
			f.Close()
		}
	}
}

// newNamespace moves the calling thread into a new one.
func newNamespace() (*os.File, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("make a namespace: %w", err)
	}
	if err := noIPv6(); err != nil {
		return nil, err
	}
	return os.Open("/proc/thread-self/ns/net")
}

// plainPod makes a pod of the calling thread's node.
func plainPod(node *os.File, number int, address netip.Addr) (*os.File, error) {
	to, err := openRtnetlink() // the node's
	if err != nil {
		return nil, err
	}
	defer unix.Close(to)
	var pod *os.File
	err = onThread(func() (err error) {
		if pod, err = newNamespace(); err != nil {
			return err
		}
		inside, err := openRtnetlink()
		if err != nil {
			return err
		}
		defer unix.Close(inside)
		l := floorLink{name: "eth0", index: firstLink, mtu: defaultMTU, mac: [6]byte{0x02, 0xb0, 0, 0, 1, byte(number)},
			port: firstPort + number, portMTU: defaultMTU, portName: fmt.Sprintf("lxc%d", number), address: netip.PrefixFrom(address, 32)}
		var pair, rest batch
		pair.pair(l, int(pod.Fd()))
		pair.route(floorRoute{to: l.address, index: []int{l.port}, protocol: unix.RTPROT_BOOT, scope: scopeLink})
		if err := pair.send(to); err != nil {
			return err
		}
		rest.request(unix.RTM_SETLINK, 0, linkHeader(loopback, true))
		rest.request(unix.RTM_SETLINK, 0, linkHeader(l.index, true))
		rest.address(l)
		rest.route(floorRoute{to: netip.PrefixFrom(plainGateway, 32), index: []int{l.index}, protocol: unix.RTPROT_BOOT, scope: scopeLink})
		rest.route(floorRoute{to: netip.PrefixFrom(netip.IPv4Unspecified(), 0), via: []netip.Addr{plainGateway}, index: []int{l.index}, protocol: unix.RTPROT_BOOT})
		return rest.send(inside)
	})
	return pod, err
}

// load runs a tool in the node, with rules on its standard input.
func (p *plain) load(ctx context.Context, rules string, argv ...string) error {
	return onThread(func() error {
		if err := unix.Setns(int(p.node.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %.300s", strings.Join(argv, " "), err, out)
		}
		return nil
	})
}
