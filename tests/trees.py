"""Trees of /proc and /sys as kernels and containers show them, each with its source.

Figures, paths and shapes are of the source; where it leaves out a file, the kernel's documentation
says what stands in it. `cores`: threads worth running; `left`: bytes up to the memory limit.
"""

from dataclasses import dataclass, field
from pathlib import Path

V2 = "35 24 0:30 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_CPU = "33 31 0:29 {top} /sys/fs/cgroup/cpu,cpuacct ro,nosuid - cgroup cgroup rw,cpu,cpuacct\n"
V1_MEMORY = "34 31 0:30 {top} /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n"
NO_LIMIT = "9223372036854771712"
GB = 10**9


@dataclass(frozen=True)
class Tree:
    name: str
    source: str
    files: dict[str, str]
    cores: int
    left: int | None = None
    allowed: frozenset[int] | None = None
    n_cpus: int = 96
    threads_per_core: int = 1
    paired: bool = True
    """Hardware threads of a core are neighbours (Intel's hybrids); else half of all apart."""
    own: dict[int, dict[str, str]] = field(default_factory=dict)
    """Files of single processors."""

    def write(self, root: Path) -> frozenset[int]:
        """The processors that the process may use."""
        for name, text in self.files.items():
            put(root / name, text)
        for cpu in range(self.n_cpus):
            folder = root / f"sys/devices/system/cpu/cpu{cpu}"
            put(folder / "topology/thread_siblings_list", self.siblings(cpu))
            for name, text in self.own.get(cpu, {}).items():
                put(folder / name, text)
        return self.allowed or frozenset(range(self.n_cpus))

    def siblings(self, cpu: int) -> str:
        if self.threads_per_core == 1 or "topology/thread_siblings_list" in self.own.get(cpu, {}):
            return str(cpu)
        if self.paired:
            return f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}"
        half = self.n_cpus // 2
        return f"{cpu % half},{cpu % half + half}"


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n" * (not text.endswith("\n")))


def cpus(numbers: range, **files: str) -> dict[int, dict[str, str]]:
    names = {"capacity": "cpu_capacity", "khz": "cpufreq/cpuinfo_max_freq"}
    return {n: {names[key]: text for key, text in files.items()} for n in numbers}


POD = "/kubepods/burstable/poda38dae07/fe882fb76b48"
SLICE = "/user.slice/user-1000.slice/user@1000.service/app.slice/run-u1.scope"

TREES = (
    Tree(
        "v1 container of 7.65 CPUs among 96, namespace of its own",
        "https://github.com/tobocop2/lilbee/pull/660 (RunPod A40)",
        {
            "proc/self/cgroup": "4:memory:/\n3:cpu,cpuacct:/\n",
            "proc/self/mountinfo": V1_CPU.format(top="/") + V1_MEMORY.format(top="/"),
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "765000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(4 * GB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GB),
        },
        cores=7,
        left=3 * GB,
        threads_per_core=2,
        paired=False,
    ),
    Tree(
        "v1 pod whose own group has no quota, the pod's has",
        "https://github.com/kubernetes/kubernetes/issues/61293, paths of issues/66070",
        {
            "proc/self/cgroup": f"5:memory:{POD}\n4:cpu,cpuacct:{POD}\n",
            "proc/self/mountinfo": V1_CPU.format(top="/") + V1_MEMORY.format(top="/"),
            f"sys/fs/cgroup/cpu,cpuacct{POD}/cpu.cfs_quota_us": "-1",
            f"sys/fs/cgroup/cpu,cpuacct{POD}/cpu.cfs_period_us": "100000",
            f"sys/fs/cgroup/cpu,cpuacct{Path(POD).parent}/cpu.cfs_quota_us": "100000",
            f"sys/fs/cgroup/cpu,cpuacct{Path(POD).parent}/cpu.cfs_period_us": "100000",
            f"sys/fs/cgroup/memory{POD}/memory.limit_in_bytes": NO_LIMIT,
            f"sys/fs/cgroup/memory{Path(POD).parent}/memory.limit_in_bytes": str(512 << 20),
            f"sys/fs/cgroup/memory{Path(POD).parent}/memory.usage_in_bytes": str(112 << 20),
        },
        cores=1,
        left=400 << 20,
    ),
    Tree(
        "v1 with the container's own group mounted, host's path in /proc",
        "https://github.com/golang/go/issues/76390",
        {
            "proc/self/cgroup": f"5:memory:{POD}\n4:cpu,cpuacct:{POD}/child\n",
            "proc/self/mountinfo": V1_CPU.format(top=POD) + V1_MEMORY.format(top=POD),
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu,cpuacct/child/cpu.cfs_quota_us": "250000",
            "sys/fs/cgroup/cpu,cpuacct/child/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(8 * GB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(3 * GB),
            "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {GB}\ntotal_active_file 0\n",
        },
        cores=2,
        left=6 * GB,
    ),
    Tree(
        "v1 path that is no descendant of what is mounted",
        "https://github.com/uber-go/automaxprocs/issues/85 (Nomad)",
        {
            "proc/self/cgroup": "5:memory:/nomad/shared\n4:cpu,cpuacct:/nomad/shared\n",
            "proc/self/mountinfo": V1_CPU.format(top="/system.slice/docker-5487.scope")
            + V1_MEMORY.format(top="/system.slice/docker-5487.scope"),
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "600000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GB),
        },
        cores=6,
        left=GB,
    ),
    Tree(
        "v1 limit of an ancestor that only memory.stat tells",
        "Documentation/admin-guide/cgroup-v1/memory.rst, section 5.2 (hierarchical_memory_limit)",
        {
            "proc/self/cgroup": "5:memory:/\n",
            "proc/self/mountinfo": V1_MEMORY.format(top="/"),
            "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GB),
            "sys/fs/cgroup/memory/memory.stat": f"cache 0\nhierarchical_memory_limit {5 * GB}\n",
        },
        cores=8,
        left=4 * GB,
        n_cpus=8,
    ),
    Tree(
        "v2 container of 4 CPUs with a namespace of its own",
        "https://github.com/ollama/ollama/issues/17916 (EPYC 7543P, 8 vCPU)",
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2.format(top="/"),
            "sys/fs/cgroup/cpu.max": "400000 100000",
            "sys/fs/cgroup/memory.max": "max",
        },
        cores=4,
        n_cpus=8,
    ),
    Tree(
        "v2 mounted from above the namespace, so that its own folder has no name here",
        "https://github.com/uber-go/automaxprocs/issues/43 (KIND), form of cgroup_namespaces(7)",
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2.format(top="/.."),
            "sys/fs/cgroup/cpu.max": "250000 100000",
            "sys/fs/cgroup/memory.max": str(GB),
            "sys/fs/cgroup/memory.current": str(GB // 4),
        },
        cores=2,
        left=GB - GB // 4,
    ),
    Tree(
        "v2 leaf without a limit below a group of two CPUs",
        "https://github.com/golang/go/issues/81180",
        {
            "proc/self/cgroup": "0::/parent/leaf\n",
            "proc/self/mountinfo": V2.format(top="/"),
            "sys/fs/cgroup/parent/cpu.max": "200000 100000",
            "sys/fs/cgroup/parent/leaf/cpu.max": "max 100000",
        },
        cores=2,
        n_cpus=5,
    ),
    Tree(
        "v2 nested in a container, the leaf without the CPU controller",
        "https://github.com/ninja-build/ninja/issues/2805",
        {
            "proc/self/cgroup": "0::/kubepods.slice/pod1/build/leaf\n",
            "proc/self/mountinfo": V2.format(top="/kubepods.slice"),
            "sys/fs/cgroup/pod1/cpu.max": "800000 100000",
            "sys/fs/cgroup/pod1/build/cpu.max": "max 100000",
            "sys/fs/cgroup/pod1/build/leaf/cgroup.procs": "1",
            "sys/fs/cgroup/pod1/memory.max": str(16 * GB),
            "sys/fs/cgroup/pod1/memory.current": str(4 * GB),
            "sys/fs/cgroup/pod1/memory.stat": f"anon 7\nactive_file {GB}\ninactive_file {GB}\n",
        },
        cores=8,
        left=14 * GB,
        n_cpus=16,
    ),
    Tree(
        "v2 user scope: systemd-run --user -p CPUQuota=200% -p MemoryMax=4G -p MemoryHigh=3G",
        "Documentation/admin-guide/cgroup-v2.rst (cpu.max, memory.high), systemd.resource-control",
        {
            "proc/self/cgroup": f"0::{SLICE}\n",
            "proc/self/mountinfo": V2.format(top="/"),
            f"sys/fs/cgroup{SLICE}/cpu.max": "200000 100000",
            f"sys/fs/cgroup{SLICE}/memory.max": str(4 << 30),
            f"sys/fs/cgroup{SLICE}/memory.high": str(3 << 30),
            f"sys/fs/cgroup{SLICE}/memory.current": str(1 << 30),
            "sys/fs/cgroup/user.slice/memory.max": "max",
        },
        cores=2,
        left=2 << 30,
        n_cpus=16,
        threads_per_core=2,
    ),
    Tree(
        "half a CPU is one thread",
        "Documentation/scheduler/sched-bwc.rst, example 3 (a quarter of a CPU)",
        {
            "proc/self/cgroup": "0::/batch\n",
            "proc/self/mountinfo": V2.format(top="/"),
            "sys/fs/cgroup/batch/cpu.max": "50000 100000",
        },
        cores=1,
    ),
    Tree(
        "v1 controllers beside an empty v2 hierarchy",
        "https://systemd.io/CGROUP_DELEGATION/ (hybrid mode)",
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/job\n2:memory:/job\n0::/job\n",
            "proc/self/mountinfo": V1_CPU.format(top="/")
            + V1_MEMORY.format(top="/")
            + V2.format(top="/").replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
            "sys/fs/cgroup/unified/job/cgroup.procs": "1",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "300000",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": str(6 * GB),
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": str(2 * GB),
        },
        cores=3,
        left=4 * GB,
        n_cpus=8,
    ),
    Tree(
        "a sandbox that shows the folders and no mounts",
        "the layout of Documentation/admin-guide/cgroup-v1/cpusets.rst at its usual places",
        {
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT,
        },
        cores=2,
    ),
    Tree(
        "Intel hybrid: 8 fast cores of two threads, 8 slow ones",
        "tools/perf/Documentation/intel-hybrid.txt of the kernel (0-15 and 16-23)",
        {"sys/devices/cpu_core/cpus": "0-15", "sys/devices/cpu_atom/cpus": "16-23"},
        cores=8,
        n_cpus=24,
        threads_per_core=2,
        own={n: {"topology/thread_siblings_list": str(n)} for n in range(16, 24)},
    ),
    Tree(
        "the same pinned to slow cores alone",
        "tools/perf/Documentation/intel-hybrid.txt; taskset -c 16-19",
        {"sys/devices/cpu_core/cpus": "0-15", "sys/devices/cpu_atom/cpus": "16-23"},
        cores=4,
        allowed=frozenset(range(16, 20)),
        n_cpus=24,
        threads_per_core=2,
        own={n: {"topology/thread_siblings_list": str(n)} for n in range(16, 24)},
    ),
    Tree(
        "both threads of two cores allowed",
        "https://github.com/tobocop2/lilbee/pull/660 (taskset -c 0-3), pairs of cputopology.rst",
        {},
        cores=2,
        allowed=frozenset(range(4)),
        n_cpus=16,
        threads_per_core=2,
    ),
    Tree(
        "threads of each core switched off, which leaves every second processor",
        "Documentation/core-api/cpu_hotplug.rst (nosmt; offline processors are in no affinity)",
        {"sys/devices/system/cpu/online": "0-7", "sys/devices/system/cpu/offline": "8-15"},
        cores=8,
        allowed=frozenset(range(8)),
        n_cpus=16,
        own={n: {"topology/thread_siblings_list": str(n)} for n in range(8)},
    ),
    Tree(
        "a cpuset of two cores and a quota of three CPUs: the smaller holds",
        "Documentation/admin-guide/cgroup-v2.rst (cpuset.cpus.effective beside cpu.max)",
        {
            "proc/self/cgroup": "0::/build.slice/job-1.scope\n",
            "proc/self/mountinfo": V2.format(top="/"),
            "sys/fs/cgroup/build.slice/cpu.max": "300000 100000",
            "sys/fs/cgroup/build.slice/job-1.scope/cpu.max": "max 100000",
            "sys/fs/cgroup/build.slice/job-1.scope/cpuset.cpus.effective": "4-7",
            "sys/fs/cgroup/build.slice/memory.high": str(6 * GB),
            "sys/fs/cgroup/build.slice/memory.max": "max",
            "sys/fs/cgroup/build.slice/memory.current": str(2 * GB),
        },
        cores=2,
        left=4 * GB,
        allowed=frozenset(range(4, 8)),
        n_cpus=16,
        threads_per_core=2,
    ),
    Tree(
        "RK3588: four A76 and four A55",
        "https://github.com/ggml-org/llama.cpp/pull/14532 (3.44 to 5.66 tok/s by the big cores)",
        {},
        cores=4,
        n_cpus=8,
        own=cpus(range(4), capacity="414", khz="1800000")
        | cpus(range(4, 8), capacity="1024", khz="2400000"),
    ),
    Tree(
        "cores that differ in clock alone, by more than 1.5",
        "https://github.com/sched-ext/scx/pull/2134 (gap of kinds; binning differs by less)",
        {},
        cores=4,
        n_cpus=24,
        threads_per_core=2,
        paired=False,
        own=cpus(range(24), khz="3300000")
        | cpus(range(3), khz="5157895")
        | cpus(range(3, 4), khz="5050000")
        | cpus(range(12, 16), khz="5157895"),
    ),
    Tree(
        "v1 task of two CPUs above a container that has no limit of its own",
        "https://github.com/aws/amazon-ecs-agent/issues/4077 (ECS, cgroup parent /ecs/TASK)",
        {
            "proc/self/cgroup": "4:memory:/ecs/bf1ddbfb/9c6d\n3:cpu,cpuacct:/ecs/bf1ddbfb/9c6d\n",
            "proc/self/mountinfo": V1_CPU.format(top="/") + V1_MEMORY.format(top="/"),
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu,cpuacct/ecs/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu,cpuacct/ecs/bf1ddbfb/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu,cpuacct/ecs/bf1ddbfb/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu,cpuacct/ecs/bf1ddbfb/9c6d/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu,cpuacct/ecs/bf1ddbfb/9c6d/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/ecs/bf1ddbfb/memory.limit_in_bytes": str(3 * GB),
            "sys/fs/cgroup/memory/ecs/bf1ddbfb/memory.usage_in_bytes": str(2 * GB),
            "sys/fs/cgroup/memory/ecs/bf1ddbfb/memory.stat": f"total_inactive_file {GB}",
            "sys/fs/cgroup/memory/ecs/bf1ddbfb/9c6d/memory.limit_in_bytes": NO_LIMIT,
        },
        cores=2,
        left=2 * GB,
        n_cpus=8,
    ),
    Tree(
        "v2 container of Docker below a slice with the limits",
        "https://github.com/google/cadvisor/issues/3682 (docker run --cgroup-parent=job-1.slice)",
        {
            "proc/self/cgroup": "0::/job.slice/job-1.slice/docker-6fa8b18c1a82.scope\n",
            "proc/self/mountinfo": V2.format(top="/"),
            "sys/fs/cgroup/job.slice/job-1.slice/cpu.max": "200000 100000",
            "sys/fs/cgroup/job.slice/job-1.slice/memory.max": str(1 << 30),
            "sys/fs/cgroup/job.slice/job-1.slice/memory.current": str(1 << 28),
            "sys/fs/cgroup/job.slice/job-1.slice/docker-6fa8b18c1a82.scope/cpu.max": "max 100000",
            "sys/fs/cgroup/job.slice/job-1.slice/docker-6fa8b18c1a82.scope/memory.max": "max",
        },
        cores=2,
        left=3 << 28,
        n_cpus=16,
        threads_per_core=2,
    ),
    Tree(
        "v2 with a cpuset alone: the CPU controller is not there",
        "Documentation/admin-guide/cgroup-v2.rst (cpuset.cpus, cgroup.controllers)",
        {
            "proc/self/cgroup": "0::/pinned\n",
            "proc/self/mountinfo": V2.format(top="/"),
            "sys/fs/cgroup/cgroup.controllers": "cpuset memory pids",
            "sys/fs/cgroup/pinned/cpuset.cpus": "2-5",
            "sys/fs/cgroup/pinned/cpuset.cpus.effective": "2-5",
            "sys/fs/cgroup/pinned/memory.max": "max",
            "sys/fs/cgroup/pinned/memory.high": "max",
        },
        cores=4,
        allowed=frozenset(range(2, 6)),
        n_cpus=16,
    ),
    Tree(
        "v2 pod that is slowed down before its limit: memory.high below memory.max",
        "https://github.com/kubernetes/enhancements KEP 2570 (500 Mi asked, 1,000 Mi at most, 0.9)",
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2.format(top="/"),
            "sys/fs/cgroup/cpu.max": "150000 100000",
            "sys/fs/cgroup/memory.max": str(1000 << 20),
            "sys/fs/cgroup/memory.high": str(950 << 20),
            "sys/fs/cgroup/memory.current": str(300 << 20),
            "sys/fs/cgroup/memory.stat": f"anon {200 << 20}\nactive_file {50 << 20}",
        },
        cores=1,
        left=700 << 20,
        n_cpus=8,
    ),
    Tree(
        "Intel hybrid with second threads and half of the slow cores offline",
        "intel-hybrid.txt and Documentation/core-api/cpu_hotplug.rst (lists name who is online)",
        {
            "sys/devices/cpu_core/cpus": "0,2,4,6",
            "sys/devices/cpu_atom/cpus": "8-11",
            "sys/devices/system/cpu/offline": "1,3,5,7,12-15",
        },
        cores=4,
        allowed=frozenset({0, 2, 4, 6, *range(8, 12)}),
        n_cpus=16,
        own={n: {"topology/thread_siblings_list": str(n)} for n in (0, 2, 4, 6, *range(8, 12))},
    ),
    Tree(
        "Snapdragon 8 Gen 3: one X4, five A720, two A520",
        "capacities of a kernel patch for sm8650.dtsi (1024, 2909, 3591 a MHz) times clocks; with"
        " six threads johnmaster/Cross-Backend_LLM_Inference_on_SnapDragon read prompts fastest",
        {},
        cores=6,
        n_cpus=8,
        own=cpus(range(2), capacity="195", khz="2265600")
        | cpus(range(2, 5), capacity="772", khz="3148800")
        | cpus(range(5, 7), capacity="725", khz="2956800")
        | cpus(range(7, 8), capacity="1024", khz="3302400"),
    ),
    Tree(
        "Snapdragon 8 Gen 2: the one fastest core is no machine of its own",
        "capacities of a kernel patch for sm8550.dtsi (270, 693, 1024 a MHz) times clocks",
        {},
        cores=5,
        n_cpus=8,
        own=cpus(range(3), capacity="167", khz="2016000")
        | cpus(range(3, 7), capacity="595", khz="2803200")
        | cpus(range(7, 8), capacity="1024", khz="3187200"),
    ),
)
