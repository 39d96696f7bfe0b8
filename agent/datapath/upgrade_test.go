//go:build linux

package datapath

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/agent/nstest"
	"github.com/native-routing/labctl/bpf"
)

// child is what a process of its own is to run a Datapath with, which a test
// can kill at any step.
type child struct {
	PinDir, Cgroup, Namespace string
	State                     api.State
	Pods                      []api.PodStatus
	Object                    string // of a variant; empty for package bpf's own
	KillAt                    string // the step at which to die; empty for none
	NoTCX                     bool
}

const childEnv = "LABCTL_DATAPATH_TEST_CHILD"

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		if err := runChild(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runChild prints every step, then "settled", and stays.
func runChild(text string) error {
	var c child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return err
	}
	ns, err := netns.GetFromPath(c.Namespace)
	if err != nil {
		return err
	}
	d, err := New(Config{PinDir: c.PinDir, Cgroup: c.Cgroup, Namespace: ns,
		Report: func(err error) { fmt.Fprintln(os.Stderr, err) }})
	if err != nil {
		return err
	}
	d.noTCX = c.NoTCX
	if c.Object != "" {
		d.source = variant(c.Object)
	}
	d.step = func(step string) error {
		fmt.Println(step)
		if step == c.KillAt {
			return unix.Kill(os.Getpid(), unix.SIGKILL)
		}
		return nil
	}
	d.Set(c.State)
	d.SetPods(c.Pods)
	go d.Run(context.Background())
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		objects, settled := d.Objects()
		if settled {
			fmt.Println("settled")
			select {}
		}
		if time.Now().After(end) {
			return fmt.Errorf("not settled: %+v", objects)
		}
	}
}

// spawn runs a child until it has settled or died, kills it then, and returns
// its steps.
func (n *node) spawn(object, killAt string, noTCX bool) (steps []string, settled bool) {
	n.t.Helper()
	text, err := json.Marshal(child{n.config.PinDir, n.config.Cgroup, n.ns.Path(), n.state, n.status, object, killAt, noTCX})
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "settled" {
			settled = true
			_ = cmd.Process.Kill()
			continue
		}
		steps = append(steps, lines.Text())
	}
	err = cmd.Wait()
	var died *exec.ExitError
	if !errors.As(err, &died) || died.Sys().(syscall.WaitStatus).Signal() != unix.SIGKILL {
		n.t.Fatalf("the process ended otherwise than by being killed: %v, after %q", err, steps)
	}
	return steps, settled
}

// variant is the datapath from an object file.
func variant(object string) source {
	return source{
		digest: func(o bpf.Options) (string, error) {
			digest, err := bpf.Digest(o)
			return "v" + digest, err
		},
		spec: func(o bpf.Options) (*ebpf.CollectionSpec, error) {
			ours, err := bpf.Spec(o)
			if err != nil {
				return nil, err
			}
			spec, err := ebpf.LoadCollectionSpec(object)
			if err != nil {
				return nil, err
			}
			delete(spec.Variables, "vocabulary")
			delete(spec.Maps, ".bss")
			for name, m := range spec.Maps {
				if !strings.HasPrefix(name, ".") {
					m.MaxEntries = ours.Maps[name].MaxEntries
				}
			}
			spec.Maps[bpf.Maglev].InnerMap.MaxEntries = ours.Maps[bpf.Maglev].InnerMap.MaxEntries
			spec.Variables["config"].Value = ours.Variables["config"].Value
			return spec, nil
		},
	}
}

// compileVariant builds the datapath with other flows and translations: members
// of a flow have changed places, and a translation has one more in front.
func compileVariant(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../../bpf")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "include", "maps.h")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := string(text)
	for _, change := range [][2]string{
		{"\t__u32 identity; /* of the client */\n", ""},
		{"struct flow {\n", "struct flow {\n\t__u32 identity;\n"},
		{"\t__be16 nat_port;\n\t__u16 service;", "\t__u16 service;\n\t__be16 nat_port;"},
		{"struct nat {\n\t__be32 addr; /* the client */", "struct nat {\n\t__u32 extra;\n\t__be32 addr; /* the client */"},
	} {
		if !strings.Contains(changed, change[0]) {
			t.Fatalf("maps.h has no %q any more", change[0])
		}
		changed = strings.Replace(changed, change[0], change[1], 1)
	}
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	object := filepath.Join(dir, "variant.o")
	cmd := exec.Command("clang-14", strings.Fields("-target bpfel -O2 -g -Wall -Wextra -mcpu=v3 -I include -c datapath.c -o "+object)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile the variant: %v (install clang-14 and libbpf-dev)\n%s", err, out)
	}
	return object
}

// TestUpgrade exchanges programs and the layout of flows under connections that
// live by their entries alone, to and fro, and dies at each step once.
func TestUpgrade(t *testing.T) {
	object := compileVariant(t)
	for _, way := range []string{"tcx", "clsact"} {
		t.Run(way, func(t *testing.T) {
			noTCX := way == "clsact"
			w := newWorld(t)
			w.a.start(func(d *Datapath) { d.noTCX = noTCX })
			w.b.start()
			serve(t, w.b.pods["pod"], "172.20.1.10:8080")
			serve(t, w.outside, "10.10.1.200:8080")
			forget := service(t, w.a.maps(), "10.96.0.20:80", "172.20.1.10:8080")
			open := []*talk{dial(t, w.a.pods["pod1"], "10.96.0.20:80"), dial(t, w.a.pods["pod1"], "10.10.1.200:8080")}
			forget()
			speak := func(when string) {
				t.Helper()
				for _, k := range open {
					if err := k.try(); err != nil {
						t.Fatalf("%s: connection to %v broke: %v", when, k.conn.RemoteAddr(), err)
					}
				}
			}
			w.a.stop()
			speak("stopped")

			// Once without dying, while a connection never stops to talk.
			quieten := dial(t, w.a.pods["pod2"], "10.10.1.200:8080").chatter()
			steps, settled := w.a.spawn(object, "", noTCX)
			if !settled {
				t.Fatalf("the upgrade did not settle after %q", steps)
			}
			if err := quieten(); err != nil {
				t.Fatalf("a busy connection broke: %v", err)
			}
			speak("upgraded")
			t.Logf("steps: %q", steps)
			w.checkFlow(object)

			old := "" // what to change to: the variant is there now
			for i, step := range steps {
				if strings.Contains(step, "@") && i%6 != 0 || noTCX && i%3 != 0 {
					continue // one link is like another
				}
				if _, settled := w.a.spawn(old, step, noTCX); settled {
					t.Errorf("no step %q on the way to %q", step, old)
				}
				speak(fmt.Sprintf("died at %q (%d)", step, i))
				if testing.Verbose() {
					t.Logf("died at %q", step)
				}
				if _, settled := w.a.spawn(old, "", noTCX); !settled {
					t.Fatalf("no start after death at %q", step)
				}
				speak(fmt.Sprintf("started after death at %q", step))
				w.checkFlow(old)
				w.checkPins()
				if old == "" {
					old = object
				} else {
					old = ""
				}
			}
			w.a.start(func(d *Datapath) { d.noTCX = noTCX })
			speak("in the end")
		})
	}
}

// TestBegunWhileTurned begins connections at every moment of an exchange of the
// maps of flows, to a service whose backends are here and elsewhere: each is
// served until all is over, though programs meet packets of connections that
// others have entered.
func TestBegunWhileTurned(t *testing.T) {
	for _, way := range []string{"tcx", "clsact"} {
		t.Run(way, func(t *testing.T) {
			noTCX := func(d *Datapath) { d.noTCX = way == "clsact" }
			w := newWorld(t)
			w.a.start(noTCX)
			w.b.start()
			for pod, address := range map[*nstest.Namespace]string{w.a.pods["pod1"]: "172.20.0.10:8080", w.b.pods["pod"]: "172.20.1.10:8080"} {
				serve(t, pod, address)
			}
			service(t, w.a.maps(), "192.168.30.100:30080", "172.20.0.10:8080", "172.20.1.10:8080")
			dial(t, w.outside, "192.168.30.100:30080") // neighbours are known then
			w.a.stop()

			var begun []chan error
			at, over := "", make(chan struct{})
			w.a.state.Cluster.MapSizes.Flows *= 2
			w.a.state.Cluster.MapSizes.NAT *= 2
			w.a.start(noTCX, func(d *Datapath) {
				d.step = func(step string) error {
					if step == "handover" || strings.HasPrefix(step, "turned") {
						at += step + ", "
						for range 5 {
							begun = append(begun, begin(w.outside, "192.168.30.100:30080", over))
						}
						time.Sleep(10 * time.Millisecond)
					}
					return nil
				}
			})
			close(over)
			failed := 0
			for _, end := range begun {
				if err := <-end; err != nil {
					failed++
					t.Error(err)
				}
			}
			t.Logf("%d of %d connections failed, begun at %s", failed, len(begun), at)
			if until := w.a.handover(); len(begun) < 25 || until != 0 {
				t.Errorf("%d connections were begun; the handover lasts until %d", len(begun), until)
			}
		})
	}
}

// begin makes a connection, talks by it until over, and says how it went.
func begin(ns *nstest.Namespace, to string, over chan struct{}) chan error {
	ended := make(chan error, 1)
	go func() {
		var conn net.Conn
		var err error
		ns.Do(func() { conn, err = net.DialTimeout("tcp4", to, 5*time.Second) })
		if err != nil {
			ended <- err
			return
		}
		defer conn.Close()
		k := talk{conn: conn}
		for err == nil && !closed(over) {
			err = k.try()
		}
		ended <- errors.Join(err, k.try())
	}()
	return ended
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// handover is until when programs wait.
func (n *node) handover() (until uint32) {
	n.t.Helper()
	if err := n.maps().Map(bpf.Handover).Lookup(uint32(0), &until); err != nil {
		n.t.Fatal(err)
	}
	return until
}

// chatter talks without pause until the function it returns is called, which
// says how that went.
func (k *talk) chatter() func() error {
	stop, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			if err := k.try(); err != nil {
				ended <- err
				return
			}
		}
	}()
	return func() error {
		close(stop)
		return <-ended
	}
}

// TestFirstStart dies at each step of the very first start.
func TestFirstStart(t *testing.T) {
	w := newWorld(t)
	steps, settled := w.a.spawn("", "", false)
	if !settled {
		t.Fatal("no first start")
	}
	for _, step := range steps {
		if err := Remove(w.a.config); err != nil {
			t.Fatal(err)
		}
		if _, settled := w.a.spawn("", step, false); settled {
			t.Errorf("no step %q", step)
		}
		if _, settled := w.a.spawn("", "", false); !settled {
			t.Fatalf("no start after death at %q", step)
		}
		w.checkPins()
	}
}

// TestOtherWay: what was attached in another way goes, and what it knew stays.
// While both are attached a masqueraded packet may be masqueraded twice; so the
// connection here is one of a service.
func TestOtherWay(t *testing.T) {
	w := newWorld(t)
	serve(t, w.b.pods["pod"], "172.20.1.10:8080")
	clsact := true
	w.a.start(func(d *Datapath) { d.noTCX = clsact })
	w.b.start(func(d *Datapath) { d.noTCX = clsact })
	service(t, w.a.maps(), "10.96.0.20:80", "172.20.1.10:8080")
	open := dial(t, w.a.pods["pod1"], "10.96.0.20:80")
	for range 2 {
		clsact = !clsact
		time.Sleep(300 * time.Millisecond) // for a moment both are attached: say nothing then
		w.a.stop()
		w.a.start(func(d *Datapath) { d.noTCX = clsact })
		open.say()
		filters, err := w.a.hooks.filters.list()
		tcx, err2 := attachedTCX(w.a)
		if want := map[bool][2]int{true: {9, 0}, false: {0, 9}}[clsact]; err != nil || err2 != nil || len(filters) != want[0] || tcx != want[1] {
			t.Errorf("%d filters and %d TCX programs, want %v; %v, %v", len(filters), tcx, want, err, err2)
		}
	}
}

// checkFlow finds the flow of the service as it was begun.
func (w *world) checkFlow(object string) {
	w.t.Helper()
	m, err := ebpf.LoadPinnedMap(pins(w.a.config.PinDir).path(mapsDir, bpf.Flows), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	defer m.Close()
	backend := netip.MustParseAddr("172.20.1.10").As4()
	found := 0
	key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	each := m.Iterate()
	for each.Next(&key, &value) {
		at := 0 // of member frontend
		if object != "" {
			at = 4
		}
		if string(value[at+4:at+8]) == string(backend[:]) {
			found++
		}
	}
	if found != 1 {
		w.t.Errorf("%d flows to the service's backend, want 1", found)
	}
}

// checkPins finds nothing that is left over.
func (w *world) checkPins() {
	w.t.Helper()
	p := pins(w.a.config.PinDir)
	maps, _ := p.list(mapsDir)
	programs, _ := p.list(programsDir)
	if len(maps) != len(allMaps) || len(programs) != 9 {
		w.t.Errorf("pinned are maps %q, programs %q", maps, programs)
	}
}
