// Package remote reaches a node of a lab by SSH: commands with their streams and
// exit statuses, files put in place atomically, connections to the node's
// sockets.
//
// A node's own commands are root's, so everything runs by sudo -n where the user
// is another ([Config.Become]).
//
// SSH carries no argument vector: the node's login shell is given one line, in
// which every argument is quoted. Before the command stands env(1) with a mark of
// this one run. The mark is inherited by whatever the command starts, also by
// what leaves its session or its process group, and it is what a command that is
// cut short is found and ended by: sshd itself ends nothing when a channel
// without a terminal closes, and signals nothing that is root's.
package remote
