# What labctl looks at on a machine; it changes nothing. Every line that it
# prints is one fact: a word, a tab and a value; what can have many lines is in
# base64. The arguments: the user who logs in, and the files whose content is
# wanted, as patterns.
fact() { printf '%s\t%s\n' "$1" "$2"; }
encoded() { printf '%s\t' "$1"; base64 -w 0; echo; }

user=$1
shift
fact system "$(uname -s)"
fact arch "$(uname -m)"
fact root "$(id -u)"
read -r kernel </proc/sys/kernel/osrelease && fact kernel "$kernel"
read -r name </proc/sys/kernel/hostname && fact hostname "$name"
[ -e /sys/kernel/btf/vmlinux ] && fact btf yes
[ -r /etc/os-release ] && fact os "$(. /etc/os-release && printf '%s' "$PRETTY_NAME")"
while read -r _ point kind _; do
	case $kind in
	cgroup2) fact cgroup2 "$point" ;;
	bpf)
		fact bpf "$point"
		[ -d "$point/labctl-node" ] && fact place "$point/labctl-node"
		;;
	esac
done </proc/mounts
[ -d /run/labctl-node ] && fact place /run/labctl-node
if [ -d /run/systemd/system ]; then
	fact init systemd
	for unit in systemd-networkd NetworkManager; do
		systemctl --quiet is-active "$unit" && fact manager "$unit"
	done
fi
for name in ip tc nft ping tracepath tcpdump curl tar base64 apt-get dnf netplan; do
	command -v "$name" >/dev/null && fact command "$name"
done
account=$(getent passwd "$user")
fact account "$account"
home=${account%:*}
home=${home##*:}
# Behind sudo the connection is in the environment of sudo alone.
fact connection "${SSH_CONNECTION:-$(tr '\0' '\n' <"/proc/$PPID/environ" 2>/dev/null | sed -n 's/^SSH_CONNECTION=//p')}"
if command -v ip >/dev/null; then
	ip -j -d addr | encoded links
	ip -j -d -4 route | encoded routes
fi
command -v nft >/dev/null && nft list table netdev labctl 2>/dev/null | encoded ruleset
grep -H . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/icmp_ratemask /proc/sys/net/ipv4/conf/*/rp_filter \
	/proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv4/conf/*/accept_redirects \
	/proc/sys/net/ipv6/conf/*/disable_ipv6 2>/dev/null | encoded sysctls
# Patterns that fit nothing stay what they are, and tar passes over them.
tar -chPf - --ignore-failed-read -- $* "$home/.ssh/authorized_keys" "$home/.ssh/labctl_ed25519" 2>/dev/null | encoded files
fact end .
