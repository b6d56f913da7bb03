#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# check-man.sh - mandoc's lint of every page, warnings included, and that every
# page it refers to is there: in man/, or among the system's named below.
set -u
cd "$(dirname "$0")/.." || exit 1
shopt -s nullglob

system=' bash(1) fio(1) systemd(1) eventfd(2) fdatasync(2) fork(2) futex(2) sd_notify(3) sd_listen_fds(3) io_uring(7) unix(7) '

if ! command -v mandoc >/dev/null; then
	echo "SKIP: mandoc is not installed"
	exit 77
fi
failed=0
for page in man/*.[1-8]; do
	bad=0
	mandoc -T lint -W warning "$page" || bad=1
	while read -r name section; do
		[ -e "man/$name.$section" ] && continue
		[[ $system = *" $name($section) "* ]] && continue
		echo "$page: refers to $name($section), which is not there"
		bad=1
	done < <(sed -n 's/^\.Xr \([^ ]*\) \([1-9]\).*/\1 \2/p' "$page")
	if [ $bad = 0 ]; then
		echo "ok $page"
	else
		echo "not ok $page"
		failed=1
	fi
done
exit $failed
