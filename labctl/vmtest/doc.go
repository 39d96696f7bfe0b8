// Package vmtest brings the shipped lab up on real VMs, with the vagrant, the
// libvirt and the QEMU of this machine, and does with it what a user does. It has
// tests only. They take all processors for a quarter of an hour, so they are run
// after all others (.ci/gotest), and stand in a test bed: the machine's own
// libvirt, networks and Vagrant home are not touched.
package vmtest
