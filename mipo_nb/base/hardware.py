"""What this machine offers: cores, memory, a GPU, and the type in which it multiplies fastest."""

import contextlib
import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Hardware:
    """What this process may use of the machine, a container's limits included. Memory in bytes."""

    cores: int
    memory: int
    cuda: str | None
    cuda_memory: int
    bf16: bool
    system: str

    @property
    def device(self):
        return "cuda" if self.cuda else "cpu"

    @property
    def dtype(self):
        """Name of the torch type to hold weights in: bf16 where it is faster, else float32 (fp16 on older GPUs)."""
        return "bfloat16" if self.bf16 else "float16" if self.cuda else "float32"


def hardware():
    """Look at the machine. Loads torch."""
    import torch

    cuda = torch.cuda.is_available()
    if cuda:
        name, memory = torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory
        bf16 = torch.cuda.get_device_capability(0)[0] >= 8
    else:
        name, memory = None, 0
        bf16 = "AVX512" in torch.backends.cpu.get_cpu_capability() and _multiplies_bf16_faster()
    return Hardware(*cores_and_memory(), name, memory, bf16, f"{platform.system()} {platform.machine()}")


def cores_and_memory(root="/"):
    """(whole cores, bytes of memory) that this process may use: what is there, or what the control groups around it (a
    container's, a batch system's) leave of it. `root` is the folder that holds `proc` and `sys`."""
    cores = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()]
    memory = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for group in _control_groups(Path(root)):
        memory += _numbers(group, "memory.max", "memory.limit_in_bytes")
        time = _numbers(group, "cpu.max", "cpu.cfs_quota_us", "cpu.cfs_period_us")
        if len(time) == 2 and time[0] > 0:  # of each period, in microseconds; version 1 says -1 for no limit
            cores.append(time[0] / time[1])
    return max(1, int(min(cores))), int(min(memory))


def _control_groups(root):
    """The folders of the control groups that this process is in, and of those around them: a limit on any holds. In a
    container the groups' own names may be missing, and the top is the container's."""
    file = root / "proc/self/cgroup"
    for line in file.read_text().splitlines() if file.is_file() else ():
        _, controllers, path = line.split(":", 2)
        mounts = root / "sys/fs/cgroup"
        for top in (mounts / controllers,) if controllers else (mounts, mounts / "unified"):  # version 1, version 2
            group = top / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _numbers(group, *names):
    """The numbers in those of these files of a control group that can be read, "max" as infinity."""
    words = []
    for name in names:
        with contextlib.suppress(OSError):
            words += (group / name).read_text().split()
    return [math.inf if word == "max" else int(word) for word in words]


def processor():
    """The processor's name as the system gives it."""
    names = [line.split(": ")[1] for line in _cpuinfo().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _multiplies_bf16_faster():
    """Whether matrix products in bf16 beat float32 on this processor. They do with Intel's AMX and with AMD's
    avx512_bf16. Intel's avx512_bf16 without AMX (as in some virtual machines) does half as many products per cycle: 150
    GFLOP/s against 240 in float32, measured on a Xeon with two cores."""
    description = _cpuinfo()
    return "amx_bf16" in description or ("avx512_bf16" in description and "AuthenticAMD" in description)


def _cpuinfo():
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.is_file() else ""
