#!/bin/sh
# sshd for scenarios, as an account without any right. With arguments it runs them instead (a pod for ssh: `sleep 86400`).
#   /host/ssh-privatekey   the host's key
#   /host/authorized_keys  who is let in
set -eu
[ $# -gt 0 ] && exec "$@"

# sshd refuses a key that others can read, and a Secret's files belong to root.
cp /host/ssh-privatekey /tmp/host_key && chmod 600 /tmp/host_key
cp /host/authorized_keys /tmp/authorized_keys && chmod 600 /tmp/authorized_keys
cat >/tmp/sshd_config <<END
Port 2022
HostKey /tmp/host_key
AuthorizedKeysFile /tmp/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
Subsystem sftp /usr/lib/openssh/sftp-server
END
exec /usr/sbin/sshd -D -e -f /tmp/sshd_config
