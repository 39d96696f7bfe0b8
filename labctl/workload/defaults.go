package workload

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Kubernetes' defaults, of what a lab honours.
const (
	defaultGrace           = 30    // seconds
	defaultAffinityTimeout = 10800 // seconds
)

func orDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func orPointer[T any](field **T, value T) {
	if *field == nil {
		*field = &value
	}
}

// clean drops what a manifest may carry over from another cluster's API server.
func clean(m *metav1.ObjectMeta) {
	*m = metav1.ObjectMeta{Name: m.Name, Namespace: m.Namespace, Labels: m.Labels, Annotations: m.Annotations}
}

func defaultDeployment(d *appsv1.Deployment) {
	clean(&d.ObjectMeta)
	d.TypeMeta, d.Status = metav1.TypeMeta{}, appsv1.DeploymentStatus{}
	orPointer(&d.Spec.Replicas, 1)
	clean(&d.Spec.Template.ObjectMeta)
	d.Spec.Template.Name, d.Spec.Template.Namespace = "", ""
	delete(d.Spec.Template.Labels, labelTemplateHash) // copied from a ReplicaSet
	defaultPodSpec(&d.Spec.Template.Spec)
}

func defaultPod(p *corev1.Pod) {
	clean(&p.ObjectMeta)
	p.TypeMeta, p.Status = metav1.TypeMeta{}, corev1.PodStatus{}
	defaultPodSpec(&p.Spec)
}

func defaultPodSpec(s *corev1.PodSpec) {
	orDefault(&s.RestartPolicy, corev1.RestartPolicyAlways)
	orDefault(&s.DNSPolicy, corev1.DNSClusterFirst)
	orPointer(&s.TerminationGracePeriodSeconds, defaultGrace)
	for i := range s.Containers {
		c := &s.Containers[i]
		for j := range c.Ports {
			orDefault(&c.Ports[j].Protocol, corev1.ProtocolTCP)
		}
		defaultProbe(c.LivenessProbe)
		defaultProbe(c.ReadinessProbe)
	}
}

func defaultProbe(p *corev1.Probe) {
	if p == nil {
		return
	}
	orDefault(&p.TimeoutSeconds, 1)
	orDefault(&p.PeriodSeconds, 10)
	orDefault(&p.SuccessThreshold, 1)
	orDefault(&p.FailureThreshold, 3)
	if h := p.HTTPGet; h != nil {
		orDefault(&h.Path, "/")
		orDefault(&h.Scheme, corev1.URISchemeHTTP)
	}
}

func defaultService(v *corev1.Service) {
	clean(&v.ObjectMeta)
	v.TypeMeta, v.Status = metav1.TypeMeta{}, corev1.ServiceStatus{}
	s := &v.Spec
	orDefault(&s.Type, corev1.ServiceTypeClusterIP)
	orDefault(&s.SessionAffinity, corev1.ServiceAffinityNone)
	if s.SessionAffinity == corev1.ServiceAffinityClientIP {
		orPointer(&s.SessionAffinityConfig, corev1.SessionAffinityConfig{})
		orPointer(&s.SessionAffinityConfig.ClientIP, corev1.ClientIPConfig{})
		orPointer(&s.SessionAffinityConfig.ClientIP.TimeoutSeconds, defaultAffinityTimeout)
	}
	orPointer(&s.InternalTrafficPolicy, corev1.ServiceInternalTrafficPolicyCluster)
	if s.Type == corev1.ServiceTypeNodePort || len(s.ExternalIPs) > 0 {
		orDefault(&s.ExternalTrafficPolicy, corev1.ServiceExternalTrafficPolicyCluster)
	}
	orPointer(&s.IPFamilyPolicy, corev1.IPFamilyPolicySingleStack)
	s.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol}
	if len(s.ClusterIPs) > 0 {
		orDefault(&s.ClusterIP, s.ClusterIPs[0])
	}
	s.Ports = slices.Clone(s.Ports)
	for i := range s.Ports {
		port := &s.Ports[i]
		orDefault(&port.Protocol, corev1.ProtocolTCP)
		if port.TargetPort == (intstr.IntOrString{}) || port.TargetPort == intstr.FromString("") {
			port.TargetPort = intstr.FromInt32(port.Port)
		}
	}
}
