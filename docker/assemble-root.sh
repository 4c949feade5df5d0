#!/bin/sh
# usage: assemble-root.sh BINARY FOLDER
# Lays out the container's root: the program, what it links, certificates, a user, empty folders.
set -eu
binary=$1
root=$2

mkdir -p "$root/usr/local/bin" "$root/etc/ssl/certs" "$root/etc/sealane" "$root/tmp" "$root/var/lib/sealane"
cp "$binary" "$root/usr/local/bin/sealane"

# ldd prints "NAME => PATH (ADDRESS)" and, for the loader, "PATH (ADDRESS)".
ldd "$binary" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' | while read -r library; do
  mkdir -p "$root$(dirname "$library")"
  cp -L "$library" "$root$library"
done

cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
printf 'sealane:x:65532:65532:sealane:/var/lib/sealane:/sbin/nologin\n' >"$root/etc/passwd"
printf 'sealane:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
chmod 1777 "$root/tmp"
chown 65532:65532 "$root/var/lib/sealane"
