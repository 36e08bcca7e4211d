#!/bin/busybox sh
# The first process of the virtual machine: makes the host's files, read-only, its own, runs what it was given and says
# how it ended. Everything it has to tell goes to files of the folder /out, which the host shares.
export PATH=/bin:/sbin
busybox mkdir -p /proc /sys /dev /host /out
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
for module in $(busybox cat /modules/order); do busybox insmod "/modules/$module.ko" 2>/dev/null; done

give_up() {
  echo "guest: $1" >/dev/ttyS0
  [ -d /out/there ] && echo "$1" >/out/problem
  busybox poweroff -f
}

busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 out /out || give_up "cannot mount the shared folder"
busybox mkdir -p /out/there
echo booted >/out/booted
busybox mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=262144,ro root /host || give_up "cannot mount the host's files"
. /job/settings

# The project may live below a folder that gets a fresh file system here.
busybox mkdir -p /project
busybox mount --bind "/host$project" /project || give_up "no $project on the host"
busybox mount -t proc proc /host/proc
busybox mount -t sysfs sys /host/sys
busybox mount --bind /dev /host/dev
busybox mkdir -p /host/dev/shm /host/dev/pts
busybox mount -t tmpfs tmpfs /host/dev/shm
busybox mount -t devpts devpts /host/dev/pts
for folder in tmp run var/tmp root; do busybox mount -t tmpfs tmpfs "/host/$folder"; done
busybox chmod 1777 /host/tmp /host/var/tmp /host/dev/shm
case $project in
  /tmp/* | /run/* | /var/tmp/* | /root/*)
    busybox mkdir -p "/host$project"
    busybox mount --bind /project "/host$project"
    ;;
esac
busybox mkdir -p /host/run/vm
busybox mount --bind /out /host/run/vm
busybox cp -r /job /host/run/job
busybox mount -t cgroup2 cgroup /sys/fs/cgroup 2>/dev/null && busybox mount --bind /sys/fs/cgroup /host/sys/fs/cgroup
busybox ip link set lo up 2>/dev/null || busybox ifconfig lo up

# The NVDIMM becomes a node of memory. What it takes is on the host: ndctl, daxctl.
if [ "$pmem" = 1 ]; then
  echo offline >/sys/devices/system/memory/auto_online_blocks
  busybox chroot /host /bin/sh -c '
    ndctl create-namespace -f -e namespace0.0 -m devdax && daxctl reconfigure-device -m system-ram dax0.0' \
    >/out/pmem.log 2>&1 || echo "the NVDIMM did not become memory: $(busybox tail -n 1 /out/pmem.log)" >/out/problem
fi

# Where everything is, should the command not come to an end: the host kills the machine a little later.
(
  busybox sleep "$stuck"
  echo w >/proc/sysrq-trigger
  {
    for task in /proc/[0-9]*/task/[0-9]*; do
      case $(busybox cat "$task/stat" 2>/dev/null) in
        "" | *") I 2 "* | *") S 2 "*) continue ;; # gone, or a thread of the kernel that has nothing to do
      esac
      echo "$task $(busybox cat "$task/comm")"
      busybox cat "$task/stack"
    done
    busybox dmesg | busybox tail -n 40
  } >/out/stuck 2>&1
) &

# The console of the command are files: line by line what it says is on the host at once.
busybox chroot /host /usr/bin/env -i "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/root \
  TERM=dumb LC_ALL=C.UTF-8 IN_VM=1 VM_OUT=/run/vm /bin/sh /run/job/command </dev/null >/out/stdout 2>/out/stderr
echo $? >/out/status
busybox dmesg >/out/dmesg
busybox sync
busybox poweroff -f
