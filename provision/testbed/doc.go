// Package testbed is where real machines are tried without touching this one: a
// libvirt, a Vagrant and networks of their own, in namespaces that end with the
// program, and a box that is built from Debian's packages. For tests and the
// bench; Linux on amd64, root.
//
//	testbed.go     Enter: the program executes itself anew inside
//	namespaces.go  what inside means: mounts, network, processes
//	libvirt.go     the daemon there, and the box made known to Vagrant
//	box.go         the box, built once and kept
//	box/           its recipe
//	lab.go         the shipped lab on small VMs
package testbed
