"""What a run says while it works: a bar on a terminal, now and then a line elsewhere."""

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

console = Console(stderr=True, highlight=False)
QUIET_LINE_EVERY_S = 60.0


def say(text: str, style: str | None = None) -> None:
    """A line for the person who watches, on stderr so that stdout holds only results."""
    console.print(text, style=style, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    say(text, style="bold yellow")


class _Rate(ProgressColumn):
    def render(self, task) -> Text:
        return Text(f"{task.speed or 0:,.0f} samples/s")


class WorkBar:
    """Progress over `total` samples, of which `done` were done before a resume.

    On a terminal a bar with rate and time left; elsewhere one line a minute.
    """

    def __init__(self, title: str, total: int, done: int = 0):
        self.title, self.total, self.done, self.first = title, total, done, done
        self.started = self.spoke = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=console, transient=True, speed_estimate_period=10)

    def __enter__(self) -> "WorkBar":
        if self.bar:
            self.bar.start()
            self.task = self.bar.add_task(self.title, total=self.total, completed=self.done)
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.stop()

    def advance(self, samples: int, detail: str = "") -> None:
        self.done += samples
        if self.bar:
            self.bar.update(self.task, completed=self.done, description=f"{self.title} {detail}".strip())
            return
        now = time.monotonic()
        if now - self.spoke > QUIET_LINE_EVERY_S:
            self.spoke = now
            rate = (self.done - self.first) / (now - self.started)
            left = (self.total - self.done) / rate / 60
            say(f"{self.title} {detail}: {self.done / self.total:.0%}, {rate:,.0f} samples/s, {left:.0f} min left")
