#!/bin/sh
# Builds the test box: Debian for a machine without KVM, small and quick to boot.
#   build.sh OUT    writes OUT/box.tar; the other files of the box lie beside this script
# No boot loader: the kernel and an initrd of its modules for the disk are in the
# box, and QEMU starts them. Needs root, mmdebstrap, mke2fs, qemu-img, ssh-keygen.
set -eu
here=$(dirname "$0")
out=$1
root=$out/root

# This machine's ways to a mirror: proxies, and what it lets pass.
apt-config dump | grep -E '^Acquire::(http|https|ftp|Check|Retries|ForceIP)' >"$out/apt.conf" || true

packages=linux-image-cloud-amd64,tiny-initramfs,systemd,systemd-sysv,udev,dbus,openssh-server,sudo
packages=$packages,iproute2,iputils-ping,iputils-tracepath,tcpdump,curl,nftables,kmod,procps,ca-certificates
mmdebstrap --quiet --variant=minbase --mode=root --format=directory \
  --aptopt="$out/apt.conf" --aptopt='APT::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --include="$packages" bookworm "$root" "${LABCTL_TESTBED_MIRROR:-http://deb.debian.org/debian}"
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap"

# The user that Vagrant speaks to, with a key of this box.
ssh-keygen -q -t ed25519 -N '' -C box -f "$out/key"
chroot "$root" useradd --create-home --shell /bin/bash --password '*' vagrant
install -d -m 700 "$root/home/vagrant/.ssh"
install -m 600 "$out/key.pub" "$root/home/vagrant/.ssh/authorized_keys"
chroot "$root" chown -R vagrant:vagrant /home/vagrant/.ssh
printf 'Defaults:vagrant !syslog, !pam_session, !use_pty\nvagrant ALL=(ALL) NOPASSWD: ALL\n' >"$root/etc/sudoers.d/vagrant"
printf 'UsePAM no\nUseDNS no\nLogLevel ERROR\n' >"$root/etc/ssh/sshd_config.d/vagrant.conf"

# eth0 by DHCP, with the same address after every boot: Vagrant gives a machine up
# whose address goes away while it waits. Who adds others makes them known.
cat >"$root/etc/systemd/network/10-eth0.network" <<'END'
[Match]
Name=eth0

[Network]
DHCP=ipv4
IPv6AcceptRA=no
LinkLocalAddressing=no

[DHCPv4]
ClientIdentifier=mac
SendRelease=no
END
echo testbox >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 testbox\n' >"$root/etc/hosts"
: >"$root/etc/fstab" # the root is mounted as it should be by the initrd
: >"$root/etc/resolv.conf"
chroot "$root" systemctl --quiet enable systemd-networkd
chroot "$root" systemctl --quiet set-default multi-user.target
install -d "$root/etc/systemd/journald.conf.d" "$root/etc/systemd/system/systemd-udev-trigger.service.d"
printf '[Journal]\nStorage=volatile\n' >"$root/etc/systemd/journald.conf.d/volatile.conf"
# Of the devices that are there at the start, these kinds are all that is used.
printf '[Service]\nExecStart=\nExecStart=udevadm trigger --type=devices --action=add --subsystem-match=virtio --subsystem-match=net --subsystem-match=block\n' \
  >"$root/etc/systemd/system/systemd-udev-trigger.service.d/few.conf"
# What costs an emulated processor seconds at every boot, and nobody here needs.
chroot "$root" systemctl --quiet mask getty@.service serial-getty@.service systemd-networkd-wait-online.service \
  systemd-logind.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
  fstrim.timer systemd-pstore.service systemd-tmpfiles-clean.timer systemd-binfmt.service systemd-random-seed.service \
  systemd-update-utmp.service systemd-update-utmp-runlevel.service systemd-network-generator.service systemd-sysusers.service \
  systemd-journal-flush.service systemd-modules-load.service systemd-remount-fs.service kmod-static-nodes.service \
  modprobe@configfs.service modprobe@dm_mod.service modprobe@drm.service modprobe@fuse.service modprobe@loop.service \
  modprobe@efi_pstore.service sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
  sys-fs-fuse-connections.mount dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount

kernel=$(ls "$root/lib/modules")
chroot "$root" mktirfs -m no -M no --include-modules=virtio_pci,virtio_blk,ext4 -o /initrd "$kernel"
mv "$root/initrd" "$out/initrd"
cp "$root/boot/vmlinuz-$kernel" "$out/kernel"
rm -rf "$root"/boot/* "$root"/var/cache/* "$root"/var/lib/apt/lists/*
truncate -s 2G "$out/disk"
mke2fs -q -t ext4 -E lazy_itable_init=0 -m 0 -d "$root" "$out/disk"
qemu-img convert -O qcow2 "$out/disk" "$out/box.img"

cp "$here/Vagrantfile" "$here/metadata.json" "$here/qemu" "$out"
chmod 755 "$out/qemu"
tar -C "$out" -cf "$out/box.tar" metadata.json Vagrantfile qemu key kernel initrd box.img
