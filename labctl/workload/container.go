package workload

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/native-routing/labctl/agent/api"
	"github.com/native-routing/labctl/labctl/manifest"
)

// pod compiles a pod that has its node and address.
func (s Set) pod(p *corev1.Pod, dns netip.Addr) (api.Pod, error) {
	address, err := netip.ParseAddr(p.Status.PodIP)
	if err != nil {
		return api.Pod{}, err
	}
	c := api.Pod{
		Namespace: p.Namespace, Name: p.Name, UID: string(p.UID), Node: p.Spec.NodeName, Address: address,
		Labels: identityLabels(p.Labels), Identity: s.Identities[identityKey(p)], Grace: graceOf(p),
		BackendState: p.Annotations[manifest.AnnotationBackendState],
		Spec:         &api.PodSpec{Hostname: hostname(p), Restart: string(p.Spec.RestartPolicy)},
	}
	if p.Spec.DNSPolicy != corev1.DNSDefault && dns.IsValid() {
		c.Spec.Nameserver = dns
		c.Spec.Search = []string{p.Namespace + ".svc." + Domain, "svc." + Domain, Domain}
	}
	for i := range p.Spec.Containers {
		one, err := container(&p.Spec.Containers[i])
		if err != nil {
			return api.Pod{}, err
		}
		c.Spec.Containers = append(c.Spec.Containers, one)
	}
	return c, nil
}

// hostname is the pod's name unless it asks for another, cut as the kubelet does.
func hostname(p *corev1.Pod) string {
	name := p.Spec.Hostname
	if name == "" {
		name = p.Name
	}
	if len(name) > 63 {
		name = strings.TrimRight(name[:63], "-.")
	}
	return name
}

func container(c *corev1.Container) (api.Container, error) {
	program, ok := manifest.Program(c.Image)
	if !ok {
		return api.Container{}, fmt.Errorf("container %s: the lab has nothing for the image %s", c.Name, c.Image)
	}
	env := environment(c.Env)
	argv := slices.Concat(c.Command, c.Args)
	if program == api.ProgramWhoami && len(c.Command) > 0 {
		argv = argv[1:] // /whoami itself
	}
	for i := range argv {
		argv[i] = expand(argv[i], env)
	}
	return api.Container{
		Name: c.Name, Image: c.Image, Program: program, Argv: argv, Env: env, Dir: c.WorkingDir,
		Readiness: check(c, c.ReadinessProbe), Liveness: check(c, c.LivenessProbe),
	}, nil
}

// environment expands each variable by those before it; of two with the same
// name the last one counts.
func environment(list []corev1.EnvVar) map[string]string {
	if len(list) == 0 {
		return nil
	}
	env := make(map[string]string, len(list))
	for _, e := range list {
		env[e.Name] = expand(e.Value, env)
	}
	return env
}

// expand replaces $(NAME) by the variable, as Kubernetes does in commands,
// arguments and variables: $$ stands for $, and a name that is not known stays.
func expand(text string, env map[string]string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '$' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		switch text[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(text[i:], ')')
			if end < 0 {
				b.WriteString("$(")
				i++
				continue
			}
			reference := text[i : i+end+1]
			if value, ok := env[reference[2:end]]; ok {
				reference = value
			}
			b.WriteString(reference)
			i += end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// check compiles a probe whose defaults are filled in.
func check(c *corev1.Container, p *corev1.Probe) *api.Check {
	if p == nil {
		return nil
	}
	seconds := func(n int32) time.Duration { return time.Duration(n) * time.Second }
	compiled := &api.Check{
		InitialDelay: seconds(p.InitialDelaySeconds), Period: seconds(p.PeriodSeconds), Timeout: seconds(p.TimeoutSeconds),
		Failures: int(p.FailureThreshold), Successes: int(p.SuccessThreshold),
	}
	own := []corev1.Container{*c}
	switch {
	case p.HTTPGet != nil:
		port, _ := portOf(own, p.HTTPGet.Port, corev1.ProtocolTCP)
		compiled.HTTP = &api.HTTPCheck{Port: int(port), Path: p.HTTPGet.Path}
	case p.TCPSocket != nil:
		port, _ := portOf(own, p.TCPSocket.Port, corev1.ProtocolTCP)
		compiled.TCP = int(port)
	case p.Exec != nil:
		compiled.Exec = slices.Clone(p.Exec.Command)
	}
	return compiled
}
