"""A real Kubernetes on one machine, without Docker, registry or internet: for tests, benchmarks and the demo.

    lab/cluster.py up [--api-only]   start it, wait until it is ready, print the path of its kubeconfig
    lab/cluster.py down              stop it and put everything back
    lab/cluster.py load FILE.tar     import an image (an OCI layout as a tar file)
    lab/cluster.py status            what runs, and where the logs are

Rules:
1. Every daemon and every pod lives in one network namespace of its own; a veth pair joins it to the machine, whose own rules
   and routes stay as they are. Names are checked to be free before they are taken, and only what was made is removed.
   They share one mount namespace, too: folders that daemons insist on are the lab's own there, and mounts end with it.
2. The state lies in one folder (GREENTIC_LAB_STATE, else /var/lib/greentic-lab), thrown away when the cluster goes down.
   What kubelet changes for the whole machine is written down before, and restored after.
3. Processes are ended by the ids that were written down when they were started.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "image")]
from certificates import Authority  # noqa: E402

STATE = Path(os.environ.get("GREENTIC_LAB_STATE", "/var/lib/greentic-lab"))
RUN = Path("/run/greentic-lab")
NAMESPACE = "greentic-lab"
HOST_LINK, NODE_LINK = "gtlab0", "gtlab1"
HOST_ADDRESS, NODE_ADDRESS = "10.213.77.1", "10.213.77.2"
PODS, SERVICES, DNS = "10.214.0.0/16", "10.215.0.0/16", "10.215.0.10"
API = f"https://{NODE_ADDRESS}:6443"
NODE = "lab"
MACHINE_SETTINGS = (
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
OWN_FOLDERS = (
    "/var/log",
    "/var/lib/cni",
    "/var/lib/kubelet",
    "/run/containerd",
    "/run/netns",
    "/opt/containerd",
    "/opt/cni",
    "/usr/libexec/kubernetes",
)
"""Folders that containerd, CNI and kubelet write to whatever they are told."""
KUBECONFIG = STATE / "pki" / "admin.kubeconfig"


class LabError(Exception):
    """The cluster cannot be started, and why."""


class Cluster:
    """What is written down about a running cluster."""

    def __init__(self) -> None:
        self.file = STATE / "running.json"
        self.data: dict[str, object] = {"processes": {}, "settings": {}, "namespace": False, "cgroups": []}

    @classmethod
    def found(cls) -> Cluster | None:
        cluster = cls()
        if not cluster.file.exists():
            return None
        cluster.data = json.loads(cluster.file.read_text())
        return cluster

    def write(self) -> None:
        temporary = self.file.with_suffix(".new")
        temporary.write_text(json.dumps(self.data, indent=1))
        temporary.replace(self.file)

    @property
    def processes(self) -> dict[str, list[int]]:
        return self.data["processes"]  # type: ignore[return-value]


# -- starting ---------------------------------------------------------------------------------------------------------


def up(*, api_only: bool) -> Path:
    """Start the cluster, or return the one that runs. Raises `LabError`."""
    running = Cluster.found()
    if running is not None:
        if running.data.get("ready") and all(_alive(*p) for p in running.processes.values()):
            return KUBECONFIG
        down()
    _check_machine()
    programs = Path(subprocess.run([HERE / "build.sh"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    STATE.mkdir(parents=True, exist_ok=True, mode=0o700)
    (STATE / "logs").mkdir(exist_ok=True)
    RUN.mkdir(parents=True, exist_ok=True, mode=0o700)
    cluster = Cluster()
    cluster.data["settings"] = {
        name: (Path("/proc/sys") / name).read_text().strip()
        for name in MACHINE_SETTINGS
        if (Path("/proc/sys") / name).exists()
    }
    cluster.write()
    try:
        began = time.monotonic()
        _network(cluster)
        _mounts(cluster)
        authority = _certificates()
        _api_server(cluster, programs / "bin")
        if not api_only:
            _controllers(cluster, programs / "bin")
            _node(cluster, programs, authority)
        cluster.data["ready"] = True
        cluster.write()
        print(f"lab: ready after {time.monotonic() - began:.0f} s", file=sys.stderr)
    except BaseException as error:
        if isinstance(error, LabError):
            print(_log_tails(), file=sys.stderr)
        down(keep_logs=True)
        raise
    return KUBECONFIG


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise LabError(
            "the lab needs root: it makes a network namespace and runs a kubelet; use CLUSTER=kind or CLUSTER=current"
        )
    missing = [t for t in ("ip", "nft", "iptables", "conntrack", "nsenter") if shutil.which(t) is None]
    if missing:
        raise LabError(f"{', '.join(missing)} missing: apt-get install iproute2 nftables iptables conntrack util-linux")
    if _run("ip", "netns", "list").stdout.split().count(NAMESPACE) or Path(f"/run/netns/{NAMESPACE}").exists():
        raise LabError(f"a network namespace `{NAMESPACE}` exists already and is not this lab's")
    if Path(f"/sys/class/net/{HOST_LINK}").exists():
        raise LabError(f"a network interface `{HOST_LINK}` exists already and is not this lab's")
    if f"{HOST_ADDRESS}/" in _run("ip", "-4", "addr").stdout or "10.213.77." in _run("ip", "-4", "route").stdout:
        raise LabError("the network 10.213.77.0/30 is in use on this machine")


def _network(cluster: Cluster) -> None:
    _run("ip", "netns", "add", NAMESPACE)
    cluster.data["namespace"] = True
    cluster.write()
    _run("ip", "link", "add", HOST_LINK, "type", "veth", "peer", "name", NODE_LINK, "netns", NAMESPACE)
    _run("ip", "addr", "add", f"{HOST_ADDRESS}/30", "dev", HOST_LINK)
    _run("ip", "link", "set", HOST_LINK, "up")
    for words in (
        f"addr add {NODE_ADDRESS}/30 dev {NODE_LINK}", f"link set {NODE_LINK} up", "link set lo up",
        "route add unreachable default", "link add services type bridge", "link set services up", f"route add {SERVICES} dev services",
    ):  # fmt: skip
        _inside("ip", *words.split())
    for setting in ("net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1"):
        _inside("sysctl", "-q", "-w", setting)


def _mounts(cluster: Cluster) -> None:
    """A mount namespace that lives as long as the process that holds it."""
    ready = RUN / "mounts"
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", sys.executable, __file__, "hold", str(ready)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=(STATE / "logs" / "mounts").open("ab"), start_new_session=True,
    )  # fmt: skip
    cluster.processes["mounts"] = [process.pid, _started(process.pid)]
    cluster.write()
    _await("the mount namespace", ready.exists, 10)


def hold(ready: Path) -> None:
    """Put the lab's own folders in place, in the mount namespace that this process is alone in, and keep it."""
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    for folder in OWN_FOLDERS:
        for place in [*reversed(Path(folder).parents), Path(folder)]:
            if not place.exists():
                place.mkdir()
                with (STATE / "made-folders").open("a") as made:
                    made.write(f"{place}\n")
        own = STATE / "folders" / folder.strip("/").replace("/", "-")
        own.mkdir(parents=True)
        subprocess.run(["mount", "--bind", own, folder], check=True)
    ready.touch()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


def _certificates() -> Authority:
    authority = Authority(STATE / "pki")
    hosts = (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        NODE_ADDRESS,
        "10.215.0.1",
        "127.0.0.1",
    )
    authority.issue("apiserver", "kube-apiserver", hosts=hosts)
    authority.issue("kubelet-client", "kube-apiserver-kubelet-client", ("system:masters",))
    authority.issue("front-proxy", "front-proxy")
    authority.issue("kubelet-server", f"system:node:{NODE}", ("system:nodes",), (NODE, NODE_ADDRESS))
    authority.signing_key("tokens")
    authority.kubeconfig("admin", API, "lab-admin", ("system:masters",))
    authority.kubeconfig("controller-manager", API, "system:kube-controller-manager")
    authority.kubeconfig("scheduler", API, "system:kube-scheduler")
    authority.kubeconfig("proxy", API, "system:kube-proxy", ("system:node-proxier",))
    authority.kubeconfig("node", API, f"system:node:{NODE}", ("system:nodes",))
    return authority


def _api_server(cluster: Cluster, programs: Path) -> None:
    (STATE / "etcd").mkdir(mode=0o700, exist_ok=True)
    _start(cluster, "etcd", programs / "etcd", f"--data-dir={STATE}/etcd", "--listen-client-urls=http://127.0.0.1:2379",
           "--advertise-client-urls=http://127.0.0.1:2379", "--listen-peer-urls=http://127.0.0.1:2380", "--unsafe-no-fsync",
           "--quota-backend-bytes=2147483648", "--log-level=warn")  # fmt: skip
    _start(cluster, "kube-apiserver", *api_server_command(programs))
    _await("the API server", lambda: http_ok("/readyz"), 90)


def _controllers(cluster: Cluster, programs: Path) -> None:
    pki = STATE / "pki"
    for name, config, more in (
        ("kube-controller-manager", "controller-manager", (
            "--allocate-node-cidrs=true", f"--cluster-cidr={PODS}", f"--service-cluster-ip-range={SERVICES}", f"--root-ca-file={pki}/ca.crt",
            f"--service-account-private-key-file={pki}/tokens.key", "--use-service-account-credentials=true", "--controllers=*,-ttl")),
        ("kube-scheduler", "scheduler", ()),
    ):  # fmt: skip
        _start(cluster, name, programs / name, f"--kubeconfig={pki}/{config}.kubeconfig", "--leader-elect=false", *more)


def api_server_command(programs: Path) -> list[str | Path]:
    """The API server's command line; tests that restart it use the same."""
    pki = STATE / "pki"
    return [
        programs / "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", f"--advertise-address={NODE_ADDRESS}", "--secure-port=6443",
        f"--client-ca-file={pki}/ca.crt", f"--tls-cert-file={pki}/apiserver.crt", f"--tls-private-key-file={pki}/apiserver.key",
        "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
        f"--service-cluster-ip-range={SERVICES}", "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/tokens.key", f"--service-account-signing-key-file={pki}/tokens.key",
        f"--kubelet-client-certificate={pki}/kubelet-client.crt", f"--kubelet-client-key={pki}/kubelet-client.key",
        f"--kubelet-certificate-authority={pki}/ca.crt", "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={pki}/ca.crt", "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy.crt", f"--proxy-client-key-file={pki}/front-proxy.key", "--event-ttl=1h",
    ]  # fmt: skip


def _node(cluster: Cluster, programs: Path, authority: Authority) -> None:
    pki, logs = STATE / "pki", STATE / "logs"
    cgroups = [str(p) for p in Path("/sys/fs/cgroup").glob("*/kubepods")]
    if cgroups:
        raise LabError(f"cgroups of another kubelet exist: {', '.join(cgroups)}")
    cluster.data["cgroups"] = True
    cluster.write()
    (STATE / "resolv.conf").write_text("")
    (STATE / "cni").mkdir(exist_ok=True)
    (STATE / "cni" / "10-lab.conflist").write_text(json.dumps({
        "cniVersion": "0.4.0", "name": "lab", "plugins": [
            {"type": "bridge", "bridge": "pods", "isGateway": True, "hairpinMode": True, "ipMasq": False, "promiscMode": False,
             "ipam": {"type": "host-local", "dataDir": str(RUN / "addresses"), "ranges": [[{"subnet": "10.214.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": True}}]}))  # fmt: skip
    (STATE / "containerd.toml").write_text(f"""version = 2
root = "{STATE}/containerd"
state = "{RUN}/containerd"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "{RUN}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "greentic.lab/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "{NODE_ADDRESS}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{programs}/cni"
    conf_dir = "{STATE}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
      BinaryName = "{programs}/bin/runc"
""")
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "cgroupDriver": "cgroupfs", "clusterDNS": [DNS], "clusterDomain": "cluster.local",
        "resolvConf": str(STATE / "resolv.conf"), "failSwapOn": False, "staticPodPath": "", "volumePluginDir": str(STATE / "plugins"),
        "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": str(authority.path)}},
        "authorization": {"mode": "Webhook"}, "tlsCertFile": f"{pki}/kubelet-server.crt", "tlsPrivateKeyFile": f"{pki}/kubelet-server.key",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
        "imageGCHighThresholdPercent": 100, "maxPods": 110, "syncFrequency": "10s", "nodeStatusUpdateFrequency": "5s", "serializeImagePulls": False,
    }  # fmt: skip
    (STATE / "kubelet.json").write_text(json.dumps(kubelet, indent=1))
    proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "iptables", "clusterCIDR": PODS, "hostnameOverride": NODE,
        "clientConnection": {"kubeconfig": f"{pki}/proxy.kubeconfig"}, "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "200ms", "syncPeriod": "30s"},
    }  # fmt: skip
    (STATE / "proxy.json").write_text(json.dumps(proxy, indent=1))
    _start(
        cluster,
        "containerd",
        programs / "bin" / "containerd",
        "--config",
        STATE / "containerd.toml",
        libraries=programs / "bin",
    )
    _await("containerd", lambda: _ctr(programs, "version").returncode == 0, 30)
    load(_pause_image(programs), programs)
    _start(cluster, "kubelet", programs / "bin" / "kubelet", f"--config={STATE}/kubelet.json", f"--kubeconfig={pki}/node.kubeconfig", "--container-runtime=remote",
           f"--container-runtime-endpoint=unix://{RUN}/containerd.sock", f"--node-ip={NODE_ADDRESS}", f"--hostname-override={NODE}", f"--root-dir={STATE}/kubelet",
           f"--cert-dir={STATE}/kubelet-pki", "--cgroup-root=/", libraries=programs / "bin")  # fmt: skip
    _start(cluster, "kube-proxy", programs / "bin" / "kube-proxy", f"--config={STATE}/proxy.json")
    _start(cluster, "policy", sys.executable, HERE / "policy.py", KUBECONFIG)
    _await("the node", _node_ready, 90)
    (logs / "note").write_text("one log a process\n")


def _node_ready() -> bool:
    node = http_json(f"/api/v1/nodes/{NODE}")
    conditions = (node or {}).get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions) and bool(
        http_json("/api/v1/namespaces/default/serviceaccounts/default")
    )


def _pause_image(programs: Path) -> Path:
    from oci_layout import Layer, write_layout

    target = STATE / "pause.tar"
    write_layout(
        target,
        "greentic.lab/pause:1",
        [Layer.of_files({"pause": programs / "bin" / "pause"})],
        entrypoint=["/pause"],
        user="65535",
    )
    return target


def load(archive: Path, programs: Path | None = None) -> None:
    """Import an image into the lab's containerd. Raises `LabError`."""
    programs = programs or Path(
        subprocess.run([HERE / "build.sh", "--where"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    )
    done = _ctr(programs, "images", "import", str(archive))
    if done.returncode:
        raise LabError(f"importing {archive} failed: {done.stderr.strip()}")


def image_name(archive: Path) -> str:
    """The name that an image has in its archive."""
    with tarfile.open(archive) as tar:
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
    return str(index["manifests"][0]["annotations"]["io.containerd.image.name"])


def _ctr(programs: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [programs / "bin" / "ctr", "--address", RUN / "containerd.sock", "-n", "k8s.io", *words],
        capture_output=True,
        text=True,
        check=False,
    )


# -- stopping ---------------------------------------------------------------------------------------------------------


def down(*, keep_logs: bool = False) -> None:
    """Stop everything and put the machine back. Does nothing where nothing runs."""
    cluster = Cluster.found()
    if cluster is None:
        return
    order = (
        "policy",
        "kube-proxy",
        "kube-scheduler",
        "kube-controller-manager",
        "kubelet",
        "containers",
        "containerd",
        "kube-apiserver",
        "etcd",
        "mounts",
    )
    for name in order:
        if name == "containers":
            _end_containers()
        elif name in cluster.processes:
            _end(*cluster.processes[name])
    if cluster.data.get("namespace"):
        _run("ip", "link", "del", HOST_LINK, check=False)
        _run("ip", "netns", "del", NAMESPACE, check=False)
        _await("the namespace to go", lambda: not Path(f"/run/netns/{NAMESPACE}").exists(), 10)
    if cluster.data.get("cgroups") is True:
        _remove_cgroups()
    for name, value in dict(cluster.data.get("settings", {})).items():  # type: ignore[call-overload]
        path = Path("/proc/sys") / name
        if path.read_text().strip() != value:
            path.write_text(value)
    if keep_logs:
        shutil.copytree(STATE / "logs", "/tmp/greentic-lab-logs", dirs_exist_ok=True)
        print("lab: logs kept in /tmp/greentic-lab-logs", file=sys.stderr)
    made = STATE / "made-folders"
    for folder in reversed(made.read_text().split() if made.exists() else []):
        with contextlib.suppress(OSError):  # one that holds something by now stays
            Path(folder).rmdir()
    shutil.rmtree(STATE, ignore_errors=True)
    shutil.rmtree(RUN, ignore_errors=True)


def _end_containers() -> None:
    """The shims and what they run: found by the socket folder of our own containerd, and by the namespaces' cgroup."""
    shims = [
        int(p.name)
        for p in Path("/proc").iterdir()
        if p.name.isdigit() and str(RUN / "containerd.sock") in _command(int(p.name))
    ]
    for pid in [*_in_pods(), *[s for s in shims if "containerd-shim" in _command(s)]]:
        _kill(pid, signal.SIGKILL)
    _await("containers to end", lambda: not _in_pods(), 20)


def _in_pods() -> set[int]:
    """What runs in the cgroups of pods. They go while they are looked through, which a glob ends by and a walk does not."""
    roots = Path("/sys/fs/cgroup").glob("*/kubepods")
    folders = [Path(folder) for root in roots for folder, _, _ in os.walk(root)]
    return {int(number) for folder in folders for number in _lines(folder / "cgroup.procs")}


def _remove_cgroups() -> None:
    for root in Path("/sys/fs/cgroup").glob("*/kubepods"):
        for directory, _, _ in os.walk(root, topdown=False):
            for _attempt in range(20):
                try:
                    Path(directory).rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.1)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


# -- processes --------------------------------------------------------------------------------------------------------


def _start(cluster: Cluster, name: str, program: str | Path, *words: str | Path, libraries: Path | None = None) -> None:
    log = (STATE / "logs" / name).open("ab")
    environment = {**os.environ, "PATH": f"{Path(program).parent}:{os.environ['PATH']}"}
    if libraries is not None:
        environment["LD_LIBRARY_PATH"] = str(libraries)
    process = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{NAMESPACE}", f"--mount=/proc/{cluster.processes['mounts'][0]}/ns/mnt", str(program), *map(str, words)],
        stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment, start_new_session=True,
    )  # fmt: skip
    cluster.processes[name] = [process.pid, _started(process.pid)]
    cluster.write()


def restart(name: str, *, pause: float = 0.0) -> None:
    """Kill one daemon and start it again with its own command line, as an operator's machine would."""
    cluster = Cluster.found()
    if cluster is None:
        raise LabError("no lab cluster runs")
    pid, started = cluster.processes[name]
    words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")
    _end(pid, started, kill=True)
    time.sleep(pause)
    _start(cluster, name, words[0], *words[1:])


def freeze(name: str, *, seconds: float) -> None:
    """Let one daemon answer nothing for a time, and go on then as if nothing had been."""
    cluster = Cluster.found()
    if cluster is None:
        raise LabError("no lab cluster runs")
    pid, started = cluster.processes[name]
    if not _alive(pid, started):
        raise LabError(f"{name} does not run")
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)


def _alive(pid: int, started: int) -> bool:
    return _started(pid) == started


def _started(pid: int) -> int:
    """When a process started, in clock ticks: with the id it names the process for good. 0 if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])


def _end(pid: int, started: int, *, kill: bool = False) -> None:
    if not _alive(pid, started):
        return
    _kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
    deadline = time.monotonic() + 15
    while _alive(pid, started):
        if time.monotonic() > deadline:
            _kill(pid, signal.SIGKILL)
        _reap(pid)
        time.sleep(0.05)


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _inside(*words: str) -> None:
    _run("nsenter", f"--net=/run/netns/{NAMESPACE}", *words)


def add_dns(image: str) -> None:
    """Run the lab's resolver from an image with CPython, at the address that kubelet tells pods, and wait until it serves."""
    source = (HERE / "dns.py").read_text()
    where = {"name": "kube-dns", "namespace": "kube-system"}
    reader = {"name": "lab-dns", "labels": {"app": "lab-dns"}}
    container = {
        "name": "dns", "image": image, "imagePullPolicy": "Never", "command": ["/usr/local/bin/python3", "-u", "/srv/dns.py", API],
        "volumeMounts": [{"name": "source", "mountPath": "/srv"}], "securityContext": {"runAsUser": 0},
    }  # fmt: skip
    pod = {
        "serviceAccountName": "kube-dns",
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "volumes": [{"name": "source", "configMap": {"name": "kube-dns"}}],
    }
    labels = {"k8s-app": "kube-dns"}
    system = "/api/v1/namespaces/kube-system"
    for path, thing in (
        (f"{system}/serviceaccounts/kube-dns", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": where}),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles/lab-dns", {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": reader,
         "rules": [{"apiGroups": [""], "resources": ["services"], "verbs": ["list"]}]}),
        ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/lab-dns", {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": reader,
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "lab-dns"},
         "subjects": [{"kind": "ServiceAccount", **where}]}),
        (f"{system}/configmaps/kube-dns", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": where, "data": {"dns.py": source}}),
        (f"{system}/services/kube-dns", {"apiVersion": "v1", "kind": "Service", "metadata": {**where, "labels": labels}, "spec": {"clusterIP": DNS, "selector": labels,
         "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}}),
        ("/apis/apps/v1/namespaces/kube-system/deployments/kube-dns", {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": where, "spec": {
            "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}}),
    ):  # fmt: skip
        request = urllib.request.Request(
            f"{API}{path}?fieldManager=lab&force=true",
            json.dumps(thing).encode(),
            {"Content-Type": "application/apply-patch+yaml"},
            method="PATCH",
        )
        with urllib.request.urlopen(request, context=_context(), timeout=30):
            pass
    _await(
        "the resolver",
        lambda: (
            (http_json("/apis/apps/v1/namespaces/kube-system/deployments/kube-dns") or {}).get("status") or {}
        ).get("availableReplicas"),
        60,
    )


def _run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise LabError(f"`{' '.join(words)}` failed: {done.stderr.strip() or done.stdout.strip()}")
    return done


def _await(what: str, condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        cluster = Cluster.found()
        dead = [n for n, p in cluster.processes.items() if not _alive(*p)] if cluster else []
        if dead and what.startswith("the "):
            raise LabError(f"{', '.join(dead)} ended while waiting for {what}; logs are in {STATE / 'logs'}")
        if time.monotonic() > deadline:
            raise LabError(f"{what}: not there within {seconds:g} s; logs are in {STATE / 'logs'}")
        time.sleep(0.2)


# -- asking the API server --------------------------------------------------------------------------------------------


def _context() -> ssl.SSLContext:
    pki = STATE / "pki"
    context = ssl.SSLContext(
        ssl.PROTOCOL_TLS_CLIENT
    )  # not as strict as the default of Python 3.13: the authority has few extensions
    context.load_verify_locations(pki / "ca.crt")
    context.load_cert_chain(pki / "client-admin.crt", pki / "client-admin.key")
    return context


def http_json(path: str) -> dict | None:  # type: ignore[type-arg]
    try:
        with urllib.request.urlopen(API + path, context=_context(), timeout=5) as answer:
            return json.load(answer)  # type: ignore[no-any-return]
    except OSError:
        return None


def http_ok(path: str) -> bool:
    try:
        with urllib.request.urlopen(API + path, context=_context(), timeout=5) as answer:
            return answer.status == 200  # type: ignore[no-any-return]
    except OSError:
        return False


def _log_tails() -> str:
    out = []
    for log in sorted((STATE / "logs").glob("*")):
        lines = log.read_text(errors="replace").splitlines()[-8:]
        out += [f"--- {log.name}", *lines]
    return "\n".join(out)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="A Kubernetes cluster on this machine, for tests.",
        epilog="example: lab/cluster.py up && kubectl --kubeconfig $(lab/cluster.py up) get nodes",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    starting = commands.add_parser("up")
    starting.add_argument(
        "--api-only", action="store_true", help="etcd and the API server alone: no controllers, no node"
    )
    starting.add_argument(
        "--image",
        type=Path,
        metavar="FILE.tar",
        help="load this image (image/build.py makes it), and run the resolver from it",
    )
    commands.add_parser("down").add_argument("--keep-logs", action="store_true")
    commands.add_parser("load").add_argument("archive", type=Path)
    commands.add_parser("status")
    commands.add_parser("hold").add_argument("ready", type=Path)
    arguments = parser.parse_args()
    try:
        if arguments.command == "up":
            kubeconfig = up(api_only=arguments.api_only)
            if arguments.image is not None:
                load(arguments.image)
                add_dns(image_name(arguments.image))
            print(kubeconfig)
        elif arguments.command == "down":
            down(keep_logs=arguments.keep_logs)
        elif arguments.command == "load":
            load(arguments.archive)
        elif arguments.command == "hold":
            hold(arguments.ready)
        else:
            cluster = Cluster.found()
            if cluster is None:
                print("no lab cluster runs")
                return 1
            for name, process in cluster.processes.items():
                print(f"{name:<26}{'running' if _alive(*process) else 'GONE'}  log: {STATE / 'logs' / name}")
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
