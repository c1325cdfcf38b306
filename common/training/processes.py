"""The processes of one run: one, or several that train together, each on a device of its own.

torchrun tells every process its place through RANK, LOCAL_RANK and WORLD_SIZE; `launch` starts them in the same way
on this machine. The first process (rank 0) locks the run's folder, writes and prints; all of them stop at the same
step.
"""

import contextlib
import datetime
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

from common.base import paths
from common.base.errors import Interrupted, MachineError, UsageError, UserError
from common.base.progress import silence

LAUNCHED = "REPRO_LAUNCHED"  # set for processes that `launch` starts and whose end it explains
LOST_PEER = 75  # how a process exits that only noticed that another one was gone
PATIENCE = datetime.timedelta(days=1)  # to wait while the first process evaluates: many crops may take hours

Value = TypeVar("Value")


class LostPeer(UserError):
    """Another process of this run has gone; it, or whoever started both, says why."""

    code = LOST_PEER


@dataclass(frozen=True)
class Processes:
    """This process's place among `count`.

    Attributes:
        rank: among all, on whatever machine.
        local_rank: among those of this machine, which is also the number of its GPU.
    """

    rank: int = 0
    local_rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def share(self) -> slice:
        """This process's part of whatever they share out among them: every `count`-th of it, from `rank` on."""
        return slice(self.rank, None, self.count)

    def groups_of(self, batch_size: int, group: int) -> Tensor:
        """This process's places in a batch, (N,), int64: every `count`-th group of it, one after the other.

        Raises:
            UsageError: the groups cannot be shared out evenly.
        """
        if batch_size % (group * self.count):
            shared = f"{self.count} process{'es' * (self.count > 1)} with groups of {group}"
            raise UsageError(f"--batch-size {batch_size}: cannot be shared out evenly among {shared}.")
        return torch.cat(torch.arange(batch_size).split(group)[self.share])

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of what the processes give, to the same bits in each; all must call it. Alone, what was given.

        Raises:
            LostPeer: another process has gone.
        """
        if self.count == 1:
            return tensor
        total = tensor.clone()
        with lost_peer_noticed():
            distributed.all_reduce(total)
        return total

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of the first process; all must call it.

        Raises:
            LostPeer: another process has gone.
        """
        if self.count > 1:
            with lost_peer_noticed():
                for tensor in tensors:
                    distributed.broadcast(tensor, src=0)

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes give; all must call it.

        Raises:
            LostPeer: another process has gone.
        """
        if self.count == 1:
            return number
        largest = torch.tensor(number)
        with lost_peer_noticed():
            distributed.all_reduce(largest, distributed.ReduceOp.MAX)
        return int(largest)

    def from_first(self, value: Value) -> Value:
        """What the first process gives; all must call it, and wait for it.

        Raises:
            LostPeer: another process has gone.
        """
        if self.count == 1:
            return value
        with lost_peer_noticed():
            values = [value]
            distributed.broadcast_object_list(values, src=0)
        return values[0]


def processes_here() -> Processes:
    """This process's place as torchrun gives it; alone, where nothing does."""
    if "RANK" not in os.environ:
        return Processes()
    return Processes(*(int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")))


@contextlib.contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the other processes of the run. All but the first fall silent.

    Raises:
        MachineError: this machine has fewer GPUs than processes.
    """
    here = processes_here()
    if here.count == 1:
        yield here
        return
    if not here.first:
        silence()
    if device == "cuda":
        if here.local_rank >= torch.cuda.device_count():
            raise MachineError(f"--nproc: this machine has {torch.cuda.device_count()} GPUs; each process needs one.")
        torch.cuda.set_device(here.local_rank)
    # Objects and numbers travel by gloo, gradients on GPUs by NCCL.
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield here
    finally:
        distributed.destroy_process_group()


@contextlib.contextmanager
def lost_peer_noticed() -> Iterator[None]:
    """
    Raises:
        LostPeer: what is done inside talks to another process, which has gone.
    """
    try:
        yield
    except RuntimeError as error:  # gloo raises nothing narrower
        if isinstance(error, torch.OutOfMemoryError) or not _by_the_network(error):
            raise
        raise LostPeer(f"another process of this run has gone ({str(error).splitlines()[0]})") from None


def _by_the_network(error: RuntimeError) -> bool:
    if not distributed.is_initialized():
        return False
    words = ("gloo", "nccl", "connection", "peer", "process group")
    return isinstance(error, distributed.DistError) or any(word in str(error).lower() for word in words)


# ---- starting them ---------------------------------------------------------------------------


def left_to_launcher(error: UserError) -> bool:
    """Whether the process that started this one says what went wrong: so for any but the first, and for one that ended
    only because another had gone.

    What goes wrong in all processes at once is for the first to say: from here on it is not to be ended because another
    was quicker to fail.
    """
    if processes_here().first:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        with open(file, "w") as stream:
            json.dump({"message": str(error), "timestamp": int(time.time())}, stream)
        return True
    return isinstance(error, LostPeer) and LAUNCHED in os.environ


def launch(count: int, words: list[str]) -> int:
    """Run `python -m common WORDS` in `count` processes of this machine, as torchrun does; returns their exit code.

    Raises:
        Interrupted: a signal came; the processes have saved what they reached.
        MachineError: a process was killed.
    """
    import logging

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.ERROR)  # what the processes print, and what is raised here, says it all
    os.environ[LAUNCHED] = "1"
    os.environ["PYTHONSAFEPATH"] = "1"  # a common/ in the caller's folder is not ours
    os.environ["PYTHONPATH"] = paths.python_path()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // count)))
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=count, rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        run_id="run", max_restarts=0, monitor_interval=0.1, start_method="spawn",
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-m", "common", *words)
    except SignalException as stopped:
        raise Interrupted(stopped.sigval, "") from None
    except ChildFailedError as failed:
        return _first_cause(failed.failures, count)
    return 0


def _first_cause(failures: dict, count: int) -> int:
    """The exit code of the process that failed by itself, rather than because another had gone; preferably of the
    first, which has said why."""
    ended_for_another = (LOST_PEER, -signal.SIGTERM)  # torchrun ends whatever is left with SIGTERM
    causes = [(rank, failure) for rank, failure in failures.items() if failure.exitcode not in ended_for_another]
    if not causes:
        raise MachineError("The processes of this run lost touch with each other; the same command goes on from here.")
    rank, failure = min(causes, key=lambda cause: cause[0])
    if failure.exitcode < 0:
        raise MachineError(
            f"Process {rank} of {count} was killed (signal {-failure.exitcode}); "
            "the same command goes on from what was last saved."
        )
    if rank:
        print(f"Process {rank} of {count}: {failure.message}", file=sys.stderr)
    return failure.exitcode
