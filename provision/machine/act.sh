# Does what its input says, one step on each line: a word and its arguments, with
# tabs between them. No argument is code. The first step that does not succeed
# ends it.
set -f
umask 022

# put MODE OWNER PATH [CONTENT]: the content is in base64. What is there keeps its
# label, and never is half written. A new file needs no more than its mode.
put() {
	new=$3.labctl-new
	[ -d "${3%/*}" ] || mkdir -p "${3%/*}" || return
	[ ! -e "$new" ] || rm -f "$new" || return
	case $1 in 644) mask=022 ;; *) mask=077 ;; esac
	fresh=yes
	if [ -f "$3" ]; then fresh= && cp -a "$3" "$new" || return; fi
	(umask $mask && printf %s "$4" | base64 -d >"$new") || return
	[ "$fresh$2" = yes0:0 ] || chown "$2" "$new" || return
	case $fresh$1 in yes644 | yes600) ;; *) chmod "$1" "$new" || return ;; esac
	mv -f "$new" "$3"
}

# claim PATH CONTENT: makes the file where there is none; of two who try one fails.
# It is there as a whole or not at all, also when the power fails.
claim() {
	new=$1.labctl-new.$$
	printf %s "$2" | base64 -d >"$new" || return
	sync "$new" 2>/dev/null # not everybody's sync(1) takes a file
	ln "$new" "$1" && rm -f "$new"
}

# queue LOG COMMAND...: repeats the command while somebody else holds a lock that it needs.
queue() {
	log=$1 tries=0
	shift
	until "$@" >"$log.now" 2>&1; do
		cat "$log.now" >>"$log"
		grep -q 'Could not get lock' "$log.now" && [ $((tries += 1)) -le 60 ] || return
		sleep 2
	done
	cat "$log.now" >>"$log"
}

# sysctl NAME VALUE: one that this kernel does not have is passed over.
sysctl() { [ ! -e "/proc/sys/$1" ] || printf '%s\n' "$2" >"/proc/sys/$1"; }

# feed INPUT COMMAND...: the input is in base64.
feed() {
	input=$1
	shift
	printf %s "$input" | base64 -d | "$@"
}

# settle LINK...: waits until systemd-networkd is done with them.
settle() {
	for link do
		read -r index <"/sys/class/net/$link/ifindex" || continue
		tries=0
		while [ $((tries += 1)) -le 50 ] && ! grep -q '^ADMIN_STATE=\(configured\|unmanaged\|failed\)' "/run/systemd/netif/links/$index" 2>/dev/null; do
			sleep 0.2
		done
	done
}

# end LAB: ends what bears the lab's mark in its environment. A lab of namespaces on
# this machine may have the same name: its processes are in a cgroup of its own.
end() {
	set +f
	IFS=$lines
	for signal in TERM KILL; do
		none=yes
		for environment in $(grep -lszx "LABCTL_LAB=$1" /proc/[0-9]*/environ 2>/dev/null); do
			process=${environment%/environ}
			grep -qs "^[^/]*/labctl\.$1/" "$process/cgroup" && continue
			kill -s "$signal" "${process#/proc/}" 2>/dev/null && none=
		done
		[ "$none" ] && break
		sleep 0.3
	done
	set -f
	return 0
}

# discard FILE: removes it, and the directory that not every distribution has.
discard() {
	rm -f "$1" || return
	case $1 in */rt_protos.d/* | */networkd.conf.d/*) rmdir "${1%/*}" 2>/dev/null ;; esac
	return 0
}

# empty CGROUP: kills what is in it and below, and removes it.
empty() {
	[ -d "$1" ] || return 0
	find "$1" -name cgroup.procs -exec cat {} + | while read -r process; do kill -s KILL "$process"; done 2>/dev/null
	tries=0
	until find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || [ ! -d "$1" ]; do
		[ $((tries += 1)) -le 50 ] || return
		sleep 0.1
	done
}

# unfilter LINK: removes the agent's filters, and the clsact qdisc that holds no more.
unfilter() {
	found=
	for side in ingress egress; do
		if tc filter show dev "$1" "$side" 2>/dev/null | grep -q ' labctl-'; then
			found=yes
			tc filter del dev "$1" "$side" pref 108 || return
		fi
	done
	[ "$found" ] || return 0
	[ "$(tc filter show dev "$1" ingress)$(tc filter show dev "$1" egress)" ] || tc qdisc del dev "$1" clsact
}

lines='
'
IFS=$lines
for step in $(cat); do
	IFS='	'
	set -- $step
	IFS=' '
	verb=$1
	shift
	case $verb in
	run) "$@" ;;
	try) "$@" || : ;;
	feed | put | claim | queue | sysctl | settle | discard | end | empty | unfilter) "$verb" "$@" ;;
	*) false ;;
	esac </dev/null || {
		printf 'labctl stopped at: %s %s %s %s\n' "$verb" "$1" "$2" "$3" | cut -c 1-200 >&2
		exit 1
	}
done
