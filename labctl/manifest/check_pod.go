package manifest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/native-routing/labctl/agent/api"
)

// The labels that every node of a lab has.
const (
	LabelHostname     = corev1.LabelHostname // the node's name
	LabelOS           = corev1.LabelOSStable // linux
	LabelControlPlane = "node-role.kubernetes.io/control-plane"
)

func (d *decoder) podSpec(p string, s corev1.PodSpec) {
	if _, ok := d.marks[p]; !ok {
		d.missing(above(p), "spec", "add it, with containers")
		return
	}
	d.oneOf(key(p, "restartPolicy"), string(s.RestartPolicy), "Always", "OnFailure", "Never")
	if s.TerminationGracePeriodSeconds != nil {
		d.atLeast(key(p, "terminationGracePeriodSeconds"), *s.TerminationGracePeriodSeconds, 0)
	}
	d.oneOf(key(p, "dnsPolicy"), string(s.DNSPolicy), "ClusterFirst", "ClusterFirstWithHostNet", "Default")
	if s.Hostname != "" {
		d.flawed(key(p, "hostname"), s.Hostname, validation.IsDNS1123Label(s.Hostname))
	}
	if s.NodeName != "" {
		d.flawed(key(p, "nodeName"), s.NodeName, validation.IsDNS1123Subdomain(s.NodeName))
	}
	for _, name := range slices.Sorted(maps.Keys(s.NodeSelector)) {
		if at := key(key(p, "nodeSelector"), name); name != LabelHostname && name != LabelOS && name != LabelControlPlane {
			d.wrongKey(at, "no node of a lab has this label", strings.Join([]string{"its labels are", LabelHostname + ",", LabelOS, "and", LabelControlPlane}, " "))
		}
	}
	d.antiAffinity(key(p, "affinity"), s.Affinity)
	d.containers(p, s.Containers)
}

func (d *decoder) antiAffinity(p string, a *corev1.Affinity) {
	if a == nil || a.PodAntiAffinity == nil {
		return
	}
	p = key(key(p, "podAntiAffinity"), "requiredDuringSchedulingIgnoredDuringExecution")
	for i, term := range a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution {
		at := index(p, i)
		switch term.TopologyKey {
		case LabelHostname:
		case "":
			d.missing(at, "topologyKey", "write topologyKey: "+LabelHostname)
		default:
			d.wrong(key(at, "topologyKey"), "the lab keeps pods apart by node only", "write "+LabelHostname)
		}
		d.selector(key(at, "labelSelector"), term.LabelSelector)
	}
}

func (d *decoder) containers(p string, containers []corev1.Container) {
	at := key(p, "containers")
	if len(containers) == 0 {
		if _, ok := d.marks[at]; ok && !d.holdsNoted[at] {
			d.wrong(at, "a pod needs a container", "add one, with name and image")
			return
		}
		d.missing(p, "containers", "add it, with a name and an image")
	}
	names, ports := map[string]string{}, map[string]string{}
	for i, c := range containers {
		if d.full() {
			return
		}
		at := index(at, i)
		if c.Name == "" {
			d.missing(at, "name", "add it")
		} else {
			d.flawed(key(at, "name"), c.Name, validation.IsDNS1123Label(c.Name))
			d.twice(key(at, "name"), c.Name, names)
		}
		d.image(at, c)
		d.containerPorts(at, c, ports)
		for j, e := range c.Env {
			if at := index(key(at, "env"), j); e.Name == "" {
				d.missing(at, "name", "add it")
			} else {
				d.flawed(key(at, "name"), e.Name, validation.IsEnvVarName(e.Name))
			}
		}
		d.probe(key(at, "livenessProbe"), c, c.LivenessProbe)
		d.probe(key(at, "readinessProbe"), c, c.ReadinessProbe)
		if l := c.LivenessProbe; l != nil && l.SuccessThreshold > 1 {
			d.wrong(key(key(at, "livenessProbe"), "successThreshold"), fmt.Sprintf("%d is not allowed for a liveness probe", l.SuccessThreshold), "write 1")
		}
	}
}

// twice notes a value that stands already in the same list.
func (d *decoder) twice(p, value string, seen map[string]string) {
	if first, ok := seen[value]; ok && !d.holdsNoted[p] {
		d.wrong(p, show(value)+" stands already at "+first, "choose another one")
		return
	}
	seen[value] = p
}

func (d *decoder) image(p string, c corev1.Container) {
	if c.Image == "" {
		d.missing(p, "image", "add it: "+knownImages)
		return
	}
	program, ok := Program(c.Image)
	switch {
	case !ok:
		d.wrong(key(p, "image"), "the lab has nothing for "+show(c.Image), knownImages)
	case program == api.ProgramWhoami && len(c.Command) > 0 && c.Command[0] != "/whoami" && c.Command[0] != "whoami":
		d.wrong(key(p, "command"), "the image "+show(c.Image)+" holds nothing but /whoami", "take it out, and write the flags of whoami in args")
	}
}

func (d *decoder) containerPorts(p string, c corev1.Container, names map[string]string) {
	for i, port := range c.Ports {
		at := index(key(p, "ports"), i)
		if _, ok := d.marks[key(at, "containerPort")]; !ok {
			d.missing(at, "containerPort", "add it")
		} else {
			d.portNumber(key(at, "containerPort"), int(port.ContainerPort))
		}
		d.protocol(key(at, "protocol"), port.Protocol)
		if port.Name != "" {
			d.flawed(key(at, "name"), port.Name, validation.IsValidPortName(port.Name))
			d.twice(key(at, "name"), port.Name, names)
		}
	}
}

func (d *decoder) portNumber(p string, port int) {
	if len(validation.IsValidPortNum(port)) > 0 && !d.holdsNoted[p] {
		d.wrong(p, strconv.Itoa(port)+" is no port", "write a number from 1 to 65535")
	}
}

func (d *decoder) protocol(p string, protocol corev1.Protocol) {
	if protocol == corev1.ProtocolSCTP {
		d.wrong(p, "the lab balances no SCTP", "write TCP or UDP")
		return
	}
	d.oneOf(p, string(protocol), "TCP", "UDP")
}

func (d *decoder) probe(p string, c corev1.Container, probe *corev1.Probe) {
	if probe == nil || d.noted[p] {
		return
	}
	handlers := 0
	if h := probe.HTTPGet; h != nil {
		handlers++
		at := key(p, "httpGet")
		d.probePort(at, c, h.Port)
		if h.Scheme == corev1.URISchemeHTTPS {
			d.wrong(key(at, "scheme"), "the lab's probe speaks no TLS", "use tcpSocket")
		} else {
			d.oneOf(key(at, "scheme"), string(h.Scheme), "HTTP")
		}
	}
	if h := probe.TCPSocket; h != nil {
		handlers++
		d.probePort(key(p, "tcpSocket"), c, h.Port)
	}
	if h := probe.Exec; h != nil {
		handlers++
		if len(h.Command) == 0 {
			d.missing(key(p, "exec"), "command", "add it, like [\"true\"]")
		}
	}
	if handlers != 1 && !d.holdsNoted[p] && !d.misspelt[p] {
		d.wrong(p, fmt.Sprintf("it has %d ways to ask", handlers), "write one of httpGet, tcpSocket, exec")
	}
	d.atLeast(key(p, "initialDelaySeconds"), int64(probe.InitialDelaySeconds), 0)
	d.atLeast(key(p, "timeoutSeconds"), int64(probe.TimeoutSeconds), 1)
	d.atLeast(key(p, "periodSeconds"), int64(probe.PeriodSeconds), 1)
	d.atLeast(key(p, "successThreshold"), int64(probe.SuccessThreshold), 1)
	d.atLeast(key(p, "failureThreshold"), int64(probe.FailureThreshold), 1)
}

// probePort: a number, or the name of one of the container's ports.
func (d *decoder) probePort(p string, c corev1.Container, port intstr.IntOrString) {
	at := key(p, "port")
	switch _, ok := d.marks[at]; {
	case !ok:
		d.missing(p, "port", "add it")
	case d.holdsNoted[at]:
	case port.Type == intstr.Int:
		d.portNumber(at, port.IntValue())
	case !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == port.StrVal }):
		d.wrong(at, "the container has no port named "+show(port.StrVal), "write a number, or the name of one of its ports")
	}
}
