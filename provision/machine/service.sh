# How a service of labctl stands; it changes nothing. The arguments: its unit, its
# executable, its lock, its log, and for how many seconds to wait until the
# service holds its lock or has ended.
fact() { printf '%s\t%s\n' "$1" "$2"; }

unit=$1 executable=$2 lock=$3 log=$4 patience=$5
if ! command -v systemctl >/dev/null; then
	fact missing systemd
	exit
fi
rounds=0
while :; do
	pid=
	[ -r "$lock" ] && read -r pid <"$lock"
	state=$(systemctl show --property=ActiveState,MainPID,ExecMainStatus,NRestarts,UnitFileState -- "$unit")
	case $state in *"MainPID=$pid"*) [ "$pid" ] && break ;; esac
	case $state in *ActiveState=failed* | *NRestarts=[1-9]*) break ;; esac
	[ $((rounds += 1)) -gt $((patience * 5)) ] && break
	sleep 0.2
done
fact lock "$pid"
for property in $state; do
	fact "${property%%=*}" "${property#*=}"
done
fact executable "$(stat -L -c %i:%.9Y -- "$executable" 2>/dev/null)"
[ -r "/proc/$pid/environ" ] && tr '\0' '\n' <"/proc/$pid/environ" | sed -n 's/^\(LABCTL_[A-Z]*\)=/\1\t/p'
fact log "$(tail -c 400 -- "$log" 2>/dev/null | base64 -w 0)"
fact end .
