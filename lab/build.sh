#!/usr/bin/env bash
# Builds what the lab cluster runs: Kubernetes from Debian's source package, etcd, containerd, runc and the
# CNI plugins from Debian's binary packages. Nothing is installed: packages are unpacked into the cache, so
# the machine's own containerd or Docker stays as it is.
#
#   lab/build.sh            build what is missing, print the folder with the programs
#   lab/build.sh --where    print that folder only
#
# The cache (GREENTIC_LAB_CACHE, else ~/.cache/greentic-lab) is keyed by this file's own content: another
# recipe is another folder, and a build that was interrupted leaves no folder that looks finished.
set -euo pipefail

recipe=$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-12)
cache=${GREENTIC_LAB_CACHE:-$HOME/.cache/greentic-lab}
done_dir=$cache/kubernetes-1.20-$recipe
[ "${1:-}" = --where ] && { echo "$done_dir"; exit 0; }
[ -e "$done_dir/bin/kubelet" ] && { echo "$done_dir"; exit 0; }

say() { printf '%s lab build: %s\n' "$(date +%T)" "$*" >&2; }
fail() { say "$*"; exit 1; }

[ "$(uname -m)" = x86_64 ] || fail "only amd64 is supported here; use CLUSTER=kind or CLUSTER=current"
grep -q 'VERSION_CODENAME=bookworm' /etc/os-release || fail "the recipe is for Debian bookworm; use CLUSTER=kind or CLUSTER=current"
for tool in gcc make rsync jq dpkg-source patch; do
  command -v "$tool" >/dev/null || fail "$tool is missing: apt-get install build-essential rsync jq dpkg-dev"
done

mkdir -p "$cache"
exec 9>"$cache/build.lock"
flock 9
[ -e "$done_dir/bin/kubelet" ] && { echo "$done_dir"; exit 0; }

work=$cache/work-$recipe
rm -rf "$work"
mkdir -p "$work/apt/lists/partial" "$work/apt/archives/partial" "$work/deb" "$work/root"

# An apt of our own: Debian's binary and source lists, its state in the work folder, the machine's untouched.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$( { sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources; \
            sed -n 's/^deb  *\(\[[^]]*\] *\)\?\(http[^ ]*\).*/\2/p' /etc/apt/sources.list; } 2>/dev/null | grep -m1 'debian$\|debian/$' || true)
[ -n "$mirror" ] || fail "this machine's apt names no Debian archive, neither in sources.list nor in sources.list.d/debian.sources"
printf 'deb [signed-by=%s] %s bookworm main\ndeb-src [signed-by=%s] %s bookworm main\n' "$keyring" "$mirror" "$keyring" "$mirror" > "$work/apt/sources.list"
cat > "$work/apt/apt.conf" <<CONF
Dir::Etc::SourceList "$work/apt/sources.list";
Dir::Etc::SourceParts "-";
Dir::State::Lists "$work/apt/lists";
Dir::Cache::Archives "$work/apt/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Sandbox::User "root";
CONF
export APT_CONFIG=$work/apt/apt.conf

say "fetching packages"
apt-get -q update >"$work/apt.log" 2>&1 || fail "apt-get update failed: $work/apt.log"
cd "$work/deb"
apt-get -q download etcd-server containerd runc containernetworking-plugins busybox-static libseccomp2 \
  golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev >>"$work/apt.log" 2>&1 || fail "apt-get download failed: $work/apt.log"
for package in *.deb; do dpkg-deb -x "$package" "$work/root"; done
apt-get -q source --download-only kubernetes >>"$work/apt.log" 2>&1 || fail "apt-get source kubernetes failed: $work/apt.log"
unset APT_CONFIG

say "unpacking the source"
dpkg-source --no-check -x ./kubernetes_*.dsc "$work/kubernetes" >>"$work/apt.log" 2>&1
tree=$work/kubernetes
# reflect2 1.0.1 ends the API server at the first write of a custom resource with this compiler; 1.0.2 does not.
reflect2=github.com/modern-go/reflect2
rm "$tree/vendor/$reflect2"/*.go "$tree/vendor/$reflect2"/*.s
cp "$work/root/usr/share/gocode/src/$reflect2/"*.go "$work/root/usr/share/gocode/src/$reflect2/"*.s "$tree/vendor/$reflect2/"
rm -f "$tree/vendor/$reflect2"/*_test.go

export GOROOT=$work/root/usr/lib/go-1.19 GOPATH=$work/gopath GOCACHE=$work/gocache GO111MODULE=off GOFLAGS= GOTOOLCHAIN=local
export PATH=$GOROOT/bin:$PATH
mkdir -p "$GOPATH/src/k8s.io"
ln -s "$tree" "$GOPATH/src/k8s.io/kubernetes"
cd "$GOPATH/src/k8s.io/kubernetes"
say "generating files"
make generated_files >"$work/generated.log" 2>&1 || fail "make generated_files failed: $work/generated.log"

version=v1.20.2
stamp="-X k8s.io/kubernetes/vendor/k8s.io/component-base/version.gitVersion=$version -X k8s.io/kubernetes/vendor/k8s.io/component-base/version.gitMajor=1 -X k8s.io/kubernetes/vendor/k8s.io/component-base/version.gitMinor=20"
mkdir -p "$work/bin"
for program in kube-apiserver kubelet kube-controller-manager kube-scheduler kube-proxy; do
  say "compiling $program"
  cgo=0; [ "$program" = kubelet ] && cgo=1
  CGO_ENABLED=$cgo go build -trimpath -ldflags "-s -w $stamp" -o "$work/bin/$program" "k8s.io/kubernetes/cmd/$program" \
    >"$work/$program.log" 2>&1 || fail "compiling $program failed: $work/$program.log"
done

cp "$work"/root/usr/bin/{etcd,containerd,containerd-shim-runc-v2,ctr} "$work/bin/"
cp "$work"/root/usr/sbin/runc "$work/bin/" 
cp "$work"/root/bin/busybox "$work/bin/"
mkdir -p "$work/cni"
cp "$work"/root/usr/lib/cni/{bridge,host-local,portmap,loopback} "$work/cni/"
cp -L "$work"/root/usr/lib/x86_64-linux-gnu/libseccomp.so.2 "$work/bin/"
printf '%s' '
  #include <signal.h>
  #include <sys/wait.h>
  #include <unistd.h>
  static void stop(int s) { (void)s; _exit(0); }
  static void reap(int s) { (void)s; while (waitpid(-1, 0, WNOHANG) > 0) {} }
  int main(void) { signal(SIGTERM, stop); signal(SIGINT, stop); signal(SIGCHLD, reap); for (;;) pause(); }' \
  | gcc -Os -static -s -x c -o "$work/bin/pause" -

mkdir -p "$work/finished"
mv "$work/bin" "$work/cni" "$work/finished/"
rm -rf "$done_dir"
mv "$work/finished" "$done_dir"
chmod -R u+w "$work" && rm -rf "$work"
say "done: $(du -sh "$done_dir" | cut -f1)"
echo "$done_dir"
