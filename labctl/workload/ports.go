package workload

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// portOf finds the number of a port that may be a name of a container's port.
func portOf(containers []corev1.Container, port intstr.IntOrString, protocol corev1.Protocol) (uint16, bool) {
	if port.Type == intstr.Int {
		return uint16(port.IntValue()), true
	}
	for _, c := range containers {
		for _, p := range c.Ports {
			if p.Name == port.StrVal && p.Protocol == protocol {
				return uint16(p.ContainerPort), true
			}
		}
	}
	return 0, false
}
