#!/usr/bin/env bash
# Makes in .machine what `make machine-test` boots, where it is not there: a Debian with its own
# kernel and what people have beside a reader, but nothing of ours.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/debian.sh
needs_root machine-test
packages=(
  systemd-sysv udev dbus kmod iproute2 procps openssh-server linux-image-amd64 initramfs-tools
  usbip usbutils modemmanager mosquitto mosquitto-clients mariadb-server pipx
  docker.io docker-cli docker-compose docker-buildx iptables ca-certificates
)
recipe="$(sha256sum <tests/machine/image.sh)"
[ "$(cat .machine/recipe 2>/dev/null)" != "$recipe" ] || exit 0
rm -rf --one-file-system .machine
mkdir -p .machine
root=.machine/root
echo "machine-test: making a Debian with its kernel, once" >&2
mmdebstrap --quiet --variant=minbase --include="${packages[*]}" \
  trixie "$root" "$(mirror)"

echo raven-machine >"$root/etc/hostname"
echo '/dev/vda / ext4 rw 0 1' >"$root/etc/fstab"
ssh-keygen -q -t ed25519 -N '' -f .machine/key
install -D -m 600 .machine/key.pub "$root$(chroot "$root" sh -c "echo ~root")/.ssh/authorized_keys"

# A processor in software takes minutes for what a real one does in passing.
printf '%s\n' virtio_pci virtio_blk ext4 >>"$root/etc/initramfs-tools/modules"
echo MODULES=list >"$root/etc/initramfs-tools/conf.d/modules"
chroot "$root" update-initramfs -u >/dev/null
chroot "$root" systemctl --quiet disable docker.service docker.socket containerd
chroot "$root" systemctl --quiet mask serial-getty@ttyS0 getty@tty1 apt-daily.timer \
  apt-daily-upgrade.timer e2scrub_reap
cp "$root"/boot/vmlinuz-* .machine/vmlinuz
cp "$root"/boot/initrd.img-* .machine/initrd
echo "$recipe" >.machine/recipe
