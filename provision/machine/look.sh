# What labctl looks at on a machine; it changes nothing. It prints facts, a line
# each: a word, a tab and a value. A text comes after a line with its word alone,
# as it is, up to a line that is the mark. Of processes there are few: on a machine
# that is emulated each costs some 30 ms.
#
# The arguments: how far to look (owner: whose the machine is, and where its things
# lie; uplink: what its uplink is made out from, too; all), the mark, the file that
# says whose it is, the user who logs in, and files whose content is wanted, as
# patterns.
fact() { printf '%s\t%s\n' "$1" "$2"; }
text() {
	printf '%s\n' "$1"
	shift
	"$@" 2>/dev/null
	printf '\n%s\n' "$mark"
}

how=$1 mark=$2 owner=$3 user=$4
shift 4
if [ -r /proc/sys/kernel/ostype ]; then
	read -r system </proc/sys/kernel/ostype
	read -r kernel </proc/sys/kernel/osrelease
	read -r name </proc/sys/kernel/hostname
else
	system=$(uname -s)
fi
fact system "$system"
fact kernel "$kernel"
fact hostname "$name"
fact arch "$(uname -m)"
fact root "$(id -u)"
[ -e /sys/kernel/btf/vmlinux ] && fact btf yes
while read -r from point kind _; do
	[ "$from" = labctl ] && continue # of a lab of namespaces, and goes with it
	case $kind in
	cgroup2) fact cgroup2 "$point" ;;
	bpf)
		fact bpf "$point"
		[ -d "$point/labctl-node" ] && fact place "$point/labctl-node"
		;;
	esac
done 2>/dev/null </proc/mounts
for name in ip tc nft ping tracepath tcpdump curl tar base64 apt-get dnf netplan; do
	command -v "$name" >/dev/null && fact command "$name"
done
account=
while read -r line; do
	case $line in "$user":*) account=$line ;; esac
done </etc/passwd
account=${account:-$(getent passwd "$user")}
fact account "$account"
home=${account%:*}
home=${home##*:}
if [ -r "$owner" ]; then
	fact owner '' # one that was cut short is empty
	while IFS= read -r line; do fact owner "$line"; done <"$owner"
fi

if [ "$how" != owner ]; then
	# Behind sudo the connection is in the environment of sudo alone.
	connection=${SSH_CONNECTION:-$(grep -az '^SSH_CONNECTION=' "/proc/$PPID/environ" 2>/dev/null | tr -d '\0')}
	fact connection "${connection#*=}"
	if command -v ip >/dev/null; then
		text links ip -j -d addr
		text routes ip -j -d -4 route
	fi
fi
if [ "$how" = all ]; then
	[ -r /etc/os-release ] && fact os "$(. /etc/os-release && printf '%s' "$PRETTY_NAME")"
	[ -d /run/labctl-node ] && fact place /run/labctl-node
	if [ -d /run/systemd/system ]; then
		fact init systemd
		active=$(systemctl is-active systemd-networkd NetworkManager)
		case $active in active*) fact manager systemd-networkd ;; esac
		case $active in *[!n]active) fact manager NetworkManager ;; esac
	fi
	command -v nft >/dev/null && text ruleset nft list table netdev labctl
	text sysctls grep -H . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/icmp_ratemask /proc/sys/net/ipv4/conf/*/rp_filter \
		/proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv4/conf/*/accept_redirects \
		/proc/sys/net/ipv6/conf/*/disable_ipv6
	set -- "$@" "$home/.ssh/authorized_keys" "$home/.ssh/labctl_ed25519"
fi
# Patterns that fit nothing stay what they are, and tar passes over them.
[ $# = 0 ] || text files tar -chPf - --ignore-failed-read -- $*
fact end .
