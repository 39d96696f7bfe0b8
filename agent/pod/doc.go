//go:build linux

// Package pod makes a node's pods real.
//
// A pod is held by one process, its sandbox: the agent's own executable in
// network, UTS, mount and PID namespaces of the pod's own. It outlives the agent, so
// pods run on while no agent does, and it runs and restarts the containers,
// which are its children and do not outlive it. [Manager] starts and ends
// sandboxes, links them to the node, checks the containers' health and reports.
//
// The sandbox is the first process of the pod's PID namespace: its end is the
// pod's, whoever ended it, and what lost its parent becomes its child. The pod's
// containers see each other, and nothing else of the machine. Numbers of processes
// that leave the pod, in files and in the pod's status, are the machine's. A
// sandbox of an agent that made no PID namespaces is taken over as it is, and has
// one when its pod is made again.
//
// A pod has the directory <data>/pods/<uid>:
//
//	pod.json         what the pod is to be; the manager writes it
//	lock             held by flock(2) as long as the sandbox lives; its number inside
//	status.json      the containers; the sandbox writes it
//	ready.json       which containers passed their readiness check; the manager writes it
//	log              what the sandbox says
//	<container>.log  what the container says, and .log.1 what it said before
//	hosts, hostname, resolv.conf
//
// and, where there is a cgroup2, the cgroups <cgroup>/pods/<uid> and below it
// one for each container. A manager that is killed leaves nothing that the next
// one would not understand: the lock is taken before the sandbox is started and
// is passed on to it, so there is never more than one; its namespaces and its
// link are made before, by a thread that dies with the manager. Where somebody
// removes the directory or the lock, the pod is made again.
package pod
