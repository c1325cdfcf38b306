"""What a run says while it works: a bar on a terminal, an occasional line elsewhere."""

import os
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from common.base.duration import duration


class _Watcher(Console):
    """Speaks to whoever watches a run, which goes on when nobody does any more."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


console = _Watcher(stderr=True, highlight=False)
QUIET_LINE_EVERY_S = 60.0


def silence() -> None:
    """Print nothing from here on: of several processes that work together, only one speaks."""
    console.quiet = True
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (for as long as the process lives)


def say(text: str, style: str | None = None) -> None:
    """A line for whoever is watching, on stderr so that stdout holds only results."""
    console.print(text, style=style, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    say(text, style="bold yellow")


class _Rate(ProgressColumn):
    def __init__(self, unit: str):
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed or 0:,.0f} {self.unit}/s")


class WorkBar:
    """Progress over `total` samples, or what `unit` says, of which `done` were done before a resume.

    On a terminal, a bar with rate and time left; elsewhere one line a minute.
    """

    def __init__(self, title: str, total: int, done: int = 0, unit: str = "samples"):
        self.title, self.total, self.done, self.first, self.unit = title, total, done, done, unit
        self.detail = ""  # shown beside the title
        self.started = self.spoke = time.monotonic()
        self.bar = None
        if sys.stderr.isatty() and not console.quiet:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(unit),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=console, transient=True, speed_estimate_period=10)

    def start(self) -> None:
        if self.bar:
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=self.total, completed=self.done)

    def stop(self) -> None:
        """May be called more than once."""
        if self.bar:
            self.bar.stop()

    def __enter__(self) -> "WorkBar":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def advance(self, samples: int) -> None:
        self.done += samples
        title = f"{self.title} {self.detail}".strip()
        if self.bar:
            self.bar.update(self.task, completed=self.done, description=title)
            return
        now = time.monotonic()
        if now - self.spoke > QUIET_LINE_EVERY_S:
            self.spoke = now
            rate = (self.done - self.first) / (now - self.started)
            left = duration((self.total - self.done) / rate)
            say(f"{title}: {self.done / self.total:.0%}, {rate:,.0f} {self.unit}/s, {left} left")
