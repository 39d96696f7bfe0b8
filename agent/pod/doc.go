//go:build linux

// Package pod makes a node's pods real.
//
// A pod is held by one process, its sandbox: the agent's own executable in
// network, UTS and mount namespaces of the pod's own. It outlives the agent, so
// pods run on while no agent does, and it runs and restarts the containers,
// which are its children and do not outlive it. [Manager] starts and ends
// sandboxes, links them to the node, checks the containers' health and reports.
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
// link are made before, by a thread that dies with the manager.
package pod
