package api

import (
	"net/netip"
	"time"
)

// Phase is where a pod is in its life, in Kubernetes' words where it has them.
type Phase string

// The phases of a pod.
const (
	PodPending     Phase = "Pending"
	PodRunning     Phase = "Running"
	PodSucceeded   Phase = "Succeeded"
	PodFailed      Phase = "Failed"
	PodTerminating Phase = "Terminating"
)

// PodList is every pod that is on the node, those that are ending included,
// sorted by namespace and name.
type PodList struct {
	Pods []PodStatus `json:"pods"`
}

// PodStatus is one pod as its node has it.
type PodStatus struct {
	Namespace string     `json:"namespace"`
	Name      string     `json:"name"`
	UID       string     `json:"uid"`
	Address   netip.Addr `json:"address"`
	Phase     Phase      `json:"phase"`
	// Ready means that every container runs and passes its readiness check.
	Ready      bool              `json:"ready"`
	Reason     string            `json:"reason,omitempty"`
	Started    time.Time         `json:"started,omitzero"`
	Containers []ContainerStatus `json:"containers"`
	Identity   uint32            `json:"identity"`
	// Endpoint is the datapath's number of the pod on this node, from 1; it
	// stays the same as long as the pod lives.
	Endpoint uint32 `json:"endpoint"`
	// Device is the node's end of the pod's link (lxc…); the rest describes it.
	Device     string `json:"device"`
	Index      int    `json:"index"`
	MAC        string `json:"mac"`       // of eth0 in the pod
	DeviceMAC  string `json:"deviceMAC"` // of the node's end
	PID        int    `json:"pid"`       // of the process that holds the pod's namespaces
	NetnsInode uint64 `json:"netnsInode"`
}

// Key names a pod in its cluster: namespace/name.
func (p PodStatus) Key() string { return p.Namespace + "/" + p.Name }

// ContainerStatus is one container as its node has it.
type ContainerStatus struct {
	Name  string `json:"name"`
	Image string `json:"image"`
	Ready bool   `json:"ready"`
	// State is running, waiting or terminated; Reason is Kubernetes' word for
	// it, such as CrashLoopBackOff or Completed.
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	// Message says more than Reason, such as which executable was not found.
	Message  string    `json:"message,omitempty"`
	Restarts int       `json:"restarts"`
	ExitCode int       `json:"exitCode,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	// LastEnded is when the last run that ended did, and LastExitCode how:
	// Kubernetes' lastState of a container that runs again. Both are zero where
	// none has ended.
	LastEnded    time.Time `json:"lastEnded,omitzero"`
	LastExitCode int       `json:"lastExitCode,omitempty"`
}
