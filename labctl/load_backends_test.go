//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

const webpodManifest = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: webpod}
spec:
  replicas: %d
  selector: {matchLabels: {app: webpod}}
  template:
    metadata: {labels: {app: webpod}, annotations: {version: "%d"}}
    spec:
      containers: [{name: webpod, image: traefik/whoami, ports: [{containerPort: 80}]}]
`

// webpods are the addresses of webpod's pods by their names.
func (l *loadLab) webpods() map[string]string {
	l.t.Helper()
	cmd := l.command("get", "pods", "-l", "app=webpod", "-o", "json")
	out, err := cmd.Output()
	if err != nil {
		l.t.Fatalf("labctl get pods: %v", err)
	}
	var list struct {
		Items []struct {
			Metadata struct{ Name, DeletionTimestamp string }
			Status   struct{ PodIP string }
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		l.t.Fatalf("labctl get pods: %v\n%s", err, out)
	}
	pods := map[string]string{}
	for _, p := range list.Items {
		if p.Metadata.DeletionTimestamp == "" {
			pods[p.Metadata.Name] = p.Status.PodIP
		}
	}
	return pods
}

// forget waits until no node has the address as a backend, and returns when.
func (l *loadLab) forget(addresses []string) time.Time {
	l.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		var left []string
		for _, node := range podNodes {
			list := l.must("dbg", node, "service", "list")
			for _, a := range addresses {
				if strings.Contains(list, "=> "+a+":80/TCP") {
					left = append(left, a+" on "+node)
				}
			}
		}
		if len(left) == 0 {
			return time.Now()
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("pods that ended are still backends: %v", left)
		}
	}
}

// TestLoadWhileBackendsComeAndGo scales, deletes and replaces the pods of a
// service that is in use: nobody is refused, and who is gone is not asked.
func TestLoadWhileBackendsComeAndGo(t *testing.T) {
	l := newLoadLab(t)
	l.apply(fmt.Sprintf(webpodManifest, 3, 0))
	traffic := l.traffic()
	gone := map[string]time.Time{}
	change := func(what string, do func(pods map[string]string)) {
		before := l.webpods()
		begin := time.Now()
		do(before)
		took := time.Since(begin)
		after := l.webpods()
		var names, addresses []string
		for name, address := range before {
			if _, there := after[name]; !there {
				names, addresses = append(names, name), append(addresses, address)
			}
		}
		at := l.forget(addresses)
		for _, name := range names {
			gone[name] = at
		}
		t.Logf("%s %s: labctl took %s, %d pods went in %s, %d are there", begin.Format("15:04:05.000"), what,
			took.Round(time.Millisecond), len(names), at.Sub(begin).Round(time.Millisecond), len(after))
		l.pause(300 * time.Millisecond)
	}
	scale := func(replicas, version int) {
		change(fmt.Sprintf("scale to %d, version %d", replicas, version), func(map[string]string) {
			l.apply(fmt.Sprintf(webpodManifest, replicas, version))
		})
	}
	scale(6, 0)
	scale(2, 0)
	scale(4, 0)
	for range 3 {
		change("delete one", func(pods map[string]string) {
			names := slices.Sorted(maps.Keys(pods))
			l.must("delete", "pod", names[l.random.IntN(len(names))])
		})
	}
	scale(4, 1)
	scale(3, 2)
	who := traffic.stop("backends came and went")
	for name, at := range gone {
		if s := who[name]; s.Last.After(at) {
			t.Errorf("%s answered a connection that began %s after every node had let it go", name, s.Last.Sub(at))
		}
	}
	for name := range l.webpods() {
		if gone[name].IsZero() && who[name].Connections == 0 {
			t.Errorf("%s is a backend, and nobody was led to it", name)
		}
	}
	l.goes()
}
