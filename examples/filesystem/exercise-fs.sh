#!/bin/sh
# Makes a file system of a type in a file, mounts it, works in it, and unmounts it:
# exercise-fs.sh TYPE.
set -e
dir=$(mktemp -d)
cd "$dir"
truncate -s 32M image
mkfs."$1" image >/dev/null 2>&1
mkdir mnt
# In a machine nobody has loaded it yet.
modprobe loop
mount -t "$1" -o loop image mnt
mkdir mnt/a mnt/b
for i in 1 2 3 4 5 6 7 8; do
	head -c 50000 /dev/zero >mnt/a/$i
done
mv mnt/a/1 mnt/b
rm mnt/a/2
ls -lR mnt >/dev/null
sync
umount mnt
