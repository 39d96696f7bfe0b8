//go:build linux

package dbg

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLinesOfCilium feeds the values of lines that were captured from Cilium
// 1.18, or follow from its source, and wants these very lines, with the spaces
// at their end. Where a table was captured in part, entries stand in for the
// rows that made its columns as wide as they were.
func TestLinesOfCilium(t *testing.T) {
	tests := []struct {
		name, maps, state, command string
		want                       []string
	}{
		{
			name: "lb list", command: "bpf lb list",
			maps: `frontend 10.96.48.145:80/TCP id=20 first=1 count=2
slot 1 backend=1
slot 2 backend=2
backend 1 172.20.0.158:80/TCP
backend 2 172.20.1.219:80/TCP
frontend 10.96.255.25:65535/TCP id=100
frontend 192.168.10.111:32050/TCP id=1 flags=0x42`,
			want: []string{
				"SERVICE ADDRESS                BACKEND ADDRESS (REVNAT_ID) (SLOT)",
				"10.96.48.145:80/TCP (2)        172.20.1.219:80/TCP (20) (2)                     ",
				"10.96.48.145:80/TCP (0)        0.0.0.0:0 (20) (0) [ClusterIP, non-routable]     ",
			},
		},
		{
			name: "lb list of NodePorts", command: "bpf lb list",
			maps: `frontend 0.0.0.0:32050/TCP id=21 flags=0x2
frontend 0.0.0.0:32179/TCP id=30 flags=0x2006
frontend 0.0.0.0:32179/TCP/i id=31 flags=0x2006`,
			want: []string{
				"0.0.0.0:32050/TCP (0)     0.0.0.0:0 (21) (0) [NodePort, non-routable]                       ",
				"0.0.0.0:32179/TCP/i (0)   0.0.0.0:0 (31) (0) [NodePort, Local, two-scopes, non-routable]    ",
			},
		},
		{
			name: "reverse NAT", command: "bpf lb list --revnat",
			maps: "frontend 10.96.48.145:80/TCP id=20",
			want: []string{"ID   BACKEND ADDRESS (REVNAT_ID) (SLOT)", "20   10.96.48.145:80   "},
		},
		{
			name: "backends", command: "bpf lb list --backends",
			maps: "backend 23 172.20.0.158:80/TCP",
			want: []string{"23   TCP://172.20.0.158   "},
		},
		{
			name: "service list", command: "service list",
			maps: `frontend 10.96.0.1:443/TCP id=13 first=1 count=1
slot 1 backend=1
backend 1 192.168.10.100:6443/TCP
frontend 10.96.48.145:80/TCP id=20 first=2 count=2
slot 2 backend=2
slot 3 backend=3
backend 2 172.20.0.158:80/TCP
backend 3 172.20.1.219:80/TCP
frontend 0.0.0.0:32050/TCP id=21 first=4 count=1 flags=0x2
frontend 10.0.2.15:32050/TCP id=22 first=4 count=1 flags=0x42
frontend 192.168.10.100:32050/TCP id=23 first=4 count=1 flags=0x42
slot 4 backend=2
frontend 192.168.10.211:80/TCP id=24 first=5 count=1 flags=0x60
slot 5 backend=2`,
			want: []string{
				"ID   Frontend                Service Type   Backend                                 ",
				"13   10.96.0.1:443/TCP       ClusterIP      1 => 192.168.10.100:6443/TCP (active)   ",
				"20   10.96.48.145:80/TCP     ClusterIP      1 => 172.20.0.158:80/TCP (active)       ",
				"                                            2 => 172.20.1.219:80/TCP (active)       ",
				"21   0.0.0.0:32050/TCP       NodePort       1 => 172.20.0.158:80/TCP (active)       ",
				"24   192.168.10.211:80/TCP   LoadBalancer   1 => 172.20.0.158:80/TCP (active)       ",
			},
		},
		{
			name: "services map", command: "map get cilium_lb4_services_v2",
			maps: `frontend 10.96.48.145:80/TCP id=20 first=1 count=3
slot 1 backend=23
slot 2 backend=24
slot 3 backend=25
frontend 192.168.10.100:32179/TCP id=9 flags=0x42`,
			want: []string{
				"10.96.48.145:80/TCP (0)        0 3[0] (20) [0x0 0x0]            ",
				"10.96.48.145:80/TCP (1)        23 0[0] (20) [0x0 0x0]           ",
			},
		},
		{
			name: "backends map", command: "map get cilium_lb4_backends_v3",
			maps: `backend 33 172.20.0.139:80/TCP
backend 34 192.168.10.100:6443/TCP`,
			want: []string{"Key   Value                  State   Error", "33    TCP://172.20.0.139             "},
		},
		{
			name: "reverse NAT map", command: "map get cilium_lb4_reverse_nat",
			maps: "frontend 10.96.155.166:80/TCP id=4",
			want: []string{"Key   Value              State   Error", "4     10.96.155.166:80           "},
		},
		{
			name: "ipcache map", command: "map get cilium_ipcache_v2",
			maps: `ipcache 172.20.0.11/32 identity=472 node=192.168.10.100 flags=2
ipcache 192.168.10.101/32 identity=47211 node=192.168.10.100 flags=2`,
			want: []string{
				"Key                 Value                                                                       State   Error",
				"172.20.0.11/32      identity=472 encryptkey=0 tunnelendpoint=192.168.10.100 flags=hastunnel     sync    ",
			},
		},
		{
			name: "ipcache list", command: "bpf ipcache list",
			maps: `ipcache 172.20.2.0/24 identity=2 node=192.168.20.100 flags=2
ipcache 172.20.0.53/32 identity=2163
ipcache 172.20.0.153/32 identity=2163`,
			want: []string{
				"IP PREFIX/ADDRESS   IDENTITY",
				"172.20.2.0/24       identity=2 encryptkey=0 tunnelendpoint=192.168.20.100 flags=hastunnel   ",
				"172.20.0.53/32      identity=2163 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>          ",
			},
		},
		{
			name: "nat list", command: "bpf nat list",
			maps: `time since=100000 tick=100000
nat TCP 172.20.0.102:57882 > 10.10.2.200:80 as 192.168.10.100:57882 ago=145
nat TCP 172.18.0.3:34178 > 54.234.221.194:443 as 172.18.0.3:34178 ago=380 flags=1`,
			want: []string{
				"TCP OUT 172.20.0.102:57882 -> 10.10.2.200:80 XLATE_SRC 192.168.10.100:57882 Created=155sec ago NeedsCT=0",
				"TCP IN 10.10.2.200:80 -> 192.168.10.100:57882 XLATE_DST 172.20.0.102:57882 Created=155sec ago NeedsCT=0",
				"TCP OUT 172.18.0.3:34178 -> 54.234.221.194:443 XLATE_SRC 172.18.0.3:34178 Created=408sec ago NeedsCT=1",
				"",
			},
		},
		{
			name: "ct list", command: "bpf ct list global",
			maps: `time since=1633021 tick=100000
flow TCP 10.244.2.131:56410 > 10.244.2.60:80 > 10.244.2.60:80 client_ep=16 flags=8 tx=0x1b rx=0x1b identity=15175`,
			want: []string{"TCP OUT 10.244.2.131:56410 -> 10.244.2.60:80 expires=1633031 Packets=0 Bytes=0 RxFlagsSeen=0x1b LastRxReport=1633021 TxFlagsSeen=0x1b LastTxReport=1633021 Flags=0x0013 [ RxClosing TxClosing SeenNonSyn ] RevNAT=0 SourceSecurityID=15175 BackendID=0 "},
		},
		{
			name: "node list", command: "node list", state: study,
			want: []string{
				"Name              IPv4 Address     Endpoint CIDR   IPv6 Address   Endpoint CIDR   Source",
				"default/k8s-ctr   192.168.10.100   172.20.0.0/24                                  local",
				"default/k8s-w0    192.168.20.100   172.20.2.0/24                                  custom-resource",
			},
		},
		{
			name: "ip list", command: "ip list", state: study,
			maps: `ipcache 0.0.0.0/0 identity=2
ipcache 172.20.1.219/32 identity=2219 node=192.168.10.101 flags=2
ipcache 172.20.1.5/32 identity=400 node=192.168.10.101 flags=2
ipcache 192.168.10.100/32 identity=1`,
			want: []string{
				"IP                  IDENTITY                                                                     SOURCE",
				"0.0.0.0/0           reserved:world                                                               ",
				"172.20.1.219/32     k8s:app=webpod                                                               custom-resource",
				"                    k8s:io.cilium.k8s.policy.cluster=default                                     ",
			},
		},
		{
			name: "endpoint list", command: "endpoint list", state: study,
			maps: `endpoint 200 172.20.1.219 identity=2219
endpoint 234 172.20.1.1 identity=1 flags=1`,
			want: []string{
				"ENDPOINT   POLICY (ingress)   POLICY (egress)   IDENTITY   LABELS (source:key[=value])                                              IPv6   IPv4           STATUS   ",
				"           ENFORCEMENT        ENFORCEMENT                                                                                                                 ",
				"200        Disabled           Disabled          2219       k8s:app=webpod                                                                  172.20.1.219   ready   ",
				"                                                           k8s:io.cilium.k8s.policy.cluster=default                                                               ",
				"234        Disabled           Disabled          1          reserved:host                                                                                  ready   ",
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			config := Config{DataDir: t.TempDir()}
			if test.state != "" {
				if err := os.WriteFile(filepath.Join(config.DataDir, "desired.json"), []byte(test.state), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			stdout, stderr, code := run(t, config, dumped(t, test.maps), strings.Fields(test.command)...)
			if code != ExitOK || stderr != "" {
				t.Fatalf("exit %d, stderr %q", code, stderr)
			}
			lines := strings.Split(stdout, "\n")
			for _, want := range test.want {
				if !contains(lines, want) {
					t.Errorf("no line %q in\n%s", want, visible(stdout))
				}
			}
		})
	}
}

func contains(lines []string, want string) bool {
	for _, line := range lines {
		if line == want {
			return true
		}
	}
	return false
}

// visible marks where lines end.
func visible(text string) string { return strings.ReplaceAll(text, "\n", "$\n") }

// study is what the agent of a node of the study was told.
const study = `{
  "generation": "1", "lab": "l", "node": "k8s-ctr",
  "pods": {"cidr": "172.20.0.0/24", "gateway": "172.20.0.1", "mtu": 1500, "directRoutes": true, "skipUnreachable": false},
  "underlay": {"links": [
    {"name": "eth0", "mtu": 1500, "addresses": ["10.0.2.15/24"]},
    {"name": "eth1", "mtu": 1500, "addresses": ["192.168.10.100/24"]}]},
  "cluster": {
    "name": "default", "serviceCIDR": "10.96.0.0/16", "nativeCIDR": "172.20.0.0/16", "masquerade": true,
    "kubeProxyReplacement": true, "algorithm": "random",
    "nodes": [
      {"name": "k8s-w0", "address": "192.168.20.100", "podCIDR": "172.20.2.0/24", "gateway": "172.20.2.1", "addresses": ["192.168.20.100"]},
      {"name": "k8s-ctr", "address": "192.168.10.100", "podCIDR": "172.20.0.0/24", "gateway": "172.20.0.1", "addresses": ["10.0.2.15", "192.168.10.100"], "controlPlane": true}],
    "pods": [
      {"namespace": "default", "name": "webpod-1", "uid": "u1", "node": "k8s-w1", "address": "172.20.1.219", "identity": 2219, "labels": {"app": "webpod"}, "grace": 0},
      {"namespace": "kube-system", "name": "dns", "uid": "u3", "node": "k8s-w1", "address": "172.20.1.5", "identity": 400, "labels": {"k8s-app": "dns"}, "grace": 0},
      {"namespace": "default", "name": "curl-pod", "uid": "u2", "node": "k8s-ctr", "address": "172.20.0.10", "identity": 300, "labels": {"app": "curl"}, "grace": 0}],
    "services": [
      {"namespace": "default", "name": "webpod", "type": "NodePort", "clusterIP": "10.96.48.145", "ports": [{"protocol": "TCP", "port": 80, "nodePort": 32050}]}]
  }
}
`
