#!/usr/bin/env bash
# Builds the programs of the tests' cluster with the go command from the modules under programs/.
# usage: build.sh BIN_DIR [MODULE...]    without modules: all. A module that is already there is left alone.
# SALLYPORT_KUBERNETES=1.33 builds Kubernetes from kubernetes-1.33 instead of kubernetes.
# Cold, on two cores: about nine minutes and 3 GB of build cache.
set -euo pipefail
bin=$(realpath -m "$1"); shift
cd "$(dirname "${BASH_SOURCE[0]}")/programs"
mkdir -p "$bin"
# Two builds at once would only take turns on the same cores; the second finds the work done.
exec 9>"$bin/.lock"; flock 9

# In the order in which they are needed: tests of the API alone can begin when the first two are there.
modules=(etcd kubernetes cni pause containerd coredns helm)
[ $# -gt 0 ] && modules=("$@")
kubernetes=kubernetes${SALLYPORT_KUBERNETES:+-$SALLYPORT_KUBERNETES}
version=$(sed -nE 's,^\tk8s\.io/kubernetes v([0-9.]+).*,\1,p' "$kubernetes/go.mod" | head -1)
# Without these the server calls itself v0.0.0-master, and charts that ask for a version refuse it.
stamp="-X k8s.io/component-base/version.gitVersion=v$version -X k8s.io/component-base/version.gitMajor=1"
stamp+=" -X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$version")"
stamp+=" -X k8s.io/component-base/version.gitTreeState=clean"

folder_of() { if [ "$1" = kubernetes ]; then echo "$kubernetes"; else echo "$1"; fi; }

# What the later ones need is fetched while the earlier ones are compiled: the network waits for no core.
for module in "${modules[@]}"; do
  [ -f "$bin/.$module.built" ] || (cd "$(folder_of "$module")" && CGO_ENABLED=0 GOFLAGS=-mod=readonly go list -deps tool) || true
done >/dev/null 2>&1 9>&- &

for module in "${modules[@]}"; do
  [ -f "$bin/.$module.built" ] && continue
  flags="-s -w"
  [ "$module" = kubernetes ] && flags+=" $stamp"
  started=$SECONDS
  # -s leaves out what debuggers read, so the compiler need not make it: a tenth of the time.
  (cd "$(folder_of "$module")" && GOBIN=$bin CGO_ENABLED=0 GOFLAGS=-mod=readonly go install -trimpath -gcflags=all=-dwarf=false -ldflags "$flags" tool)
  # The go command names a program after the last part of its module's path.
  for name in v3 server; do [ -f "$bin/$name" ] && mv "$bin/$name" "$bin/etcd"; done
  touch "$bin/.$module.built"
  echo "built $module in $((SECONDS - started)) s"
done
