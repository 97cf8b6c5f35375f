#!/bin/sh
# Installs llmproxy as a systemd service, or takes it away again. Safe to run again: an existing configuration is kept.
#
#   packaging/install.sh [--binary FILE] [--root DIR]     install (needs root unless --root is given)
#   packaging/install.sh --uninstall [--root DIR]         remove; /etc/llmproxy and logs are kept
#
#   --binary FILE   the binary to install   [target/release/llmproxy]
#   --root DIR      install below DIR: no user is made, no service is started (for packages, which also give
#                   etc/llmproxy/environment to the group llmproxy, and for tests)
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
binary=$here/../target/release/llmproxy
root=''
uninstall=no

usage() { sed -n '2,10s/^# \{0,1\}//p' "$0"; }

while [ $# -gt 0 ]; do
	case $1 in
	--binary) binary=${2:?--binary needs a file} && shift ;;
	--root) root=${2:?--root needs a directory} && shift ;;
	--uninstall) uninstall=yes ;;
	-h | --help) usage && exit 0 ;;
	*) usage >&2 && exit 2 ;;
	esac
	shift
done

if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
	echo "install.sh: run it as root, or give --root DIR" >&2
	exit 1
fi

unit=$root/etc/systemd/system/llmproxy.service
live() { [ -z "$root" ] && command -v systemctl >/dev/null && [ -d /run/systemd/system ]; }

if [ $uninstall = yes ]; then
	if live; then systemctl disable --now llmproxy.service 2>/dev/null || true; fi
	rm -f "$unit" "$root/usr/bin/llmproxy"
	if live; then systemctl daemon-reload; fi
	echo "removed; $root/etc/llmproxy is kept"
	exit 0
fi

if [ ! -x "$binary" ]; then
	echo "install.sh: $binary is not there: build it with 'cargo build --release', or give --binary FILE" >&2
	exit 1
fi
if [ -z "$root" ] && ! id llmproxy >/dev/null 2>&1; then
	useradd --system --home-dir /var/lib/llmproxy --shell /usr/sbin/nologin llmproxy
fi

install -d "$root/usr/bin" "$root/etc/systemd/system" "$root/etc/llmproxy"
# Renamed into place: a running llmproxy keeps the file it was started from.
install -m 0755 "$binary" "$root/usr/bin/llmproxy.new"
mv -f "$root/usr/bin/llmproxy.new" "$root/usr/bin/llmproxy"
install -m 0644 "$here/systemd/llmproxy.service" "$unit"
if [ ! -e "$root/etc/llmproxy/Proxyfile" ]; then
	install -m 0644 "$here/Proxyfile" "$root/etc/llmproxy/Proxyfile"
fi
if [ ! -e "$root/etc/llmproxy/environment" ]; then
	(umask 027 && printf '# KEY=value lines for the Proxyfile, read as {$KEY}\n' >"$root/etc/llmproxy/environment")
	# Root writes it, the service reads it, nobody else does. Below --root the package sets the group.
	if [ -z "$root" ]; then chgrp llmproxy "$root/etc/llmproxy/environment"; fi
fi

if live; then
	systemctl daemon-reload
	systemctl enable llmproxy.service
	systemctl restart llmproxy.service
	systemctl --no-pager --lines=0 status llmproxy.service || true
fi
echo "installed: edit $root/etc/llmproxy/Proxyfile; a save is taken over at once"
