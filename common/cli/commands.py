"""The command line behind reproduce.sh, and the only place that turns errors into exit codes.

Nothing here imports torch until a command needs it.
"""

import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from common.base import paths
from common.base.errors import Interrupted, MachineError, SomeFailed, UsageError, UserError, memory_told, nearest
from common.claims.papers import Paper, find_papers, load_paper
from common.cli.options import DATA_DIR_OPTION, DEVICE_OPTION, FOLDER, JSON_OPTION, RUN_OPTIONS

if TYPE_CHECKING:  # Closing needs torch
    from common.cli.closing import Closing

READER_LEFT = 141  # as of a program that SIGPIPE ends: what a check found was not told, so it has not passed
DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
PATH_FAULTS = (errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP)  # a path that was given and cannot be looked at


class Front(click.Group):
    """`bash reproduce.sh WORD ...`: WORD is a command or the name of a paper."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *find_papers()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in self.commands:
            return self.commands[name]
        return PaperCommand(name) if name in find_papers() else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = [*self.commands, *find_papers()]
        if self.get_command(ctx, args[0]) is None:
            suggestion = nearest(args[0], known)
            raise UsageError(
                f"{args[0]!r} is neither a paper nor a command.{suggestion} `bash reproduce.sh` lists them."
            )
        return super().resolve_command(ctx, args)


class PaperCommand(click.Command):
    """A paper's run: the options of every run, and any field of its recipe."""

    def __init__(self, name: str):
        self.paper = name
        super().__init__(
            name,
            params=RUN_OPTIONS,
            callback=lambda **options: run_paper(load_paper(name), **options),
            help=f"Train, evaluate and record {name}; then its table.",
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Only here does help need the recipe, and with it torch."""
        from common.training.recipes import described_fields

        paper = load_paper(self.paper)
        variants: dict[type, list[str]] = {}  # by the kind of their recipe
        for variant in paper.variants:
            with contextlib.suppress(UsageError):  # one that is not built
                variants.setdefault(type(paper.module("train").recipe(variant, "full")), []).append(variant)
        for recipe, names in variants.items():
            whose = f" of {names[0]} and the like" if len(variants) > 1 else ""
            title = f"Any field of the recipe{whose} (the run is then marked modified and never published)"
            with formatter.section(title):
                formatter.write_dl(described_fields(recipe))


@click.group(cls=Front, invoke_without_command=True, context_settings={"max_content_width": 110})
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@click.pass_context
def front(ctx: click.Context, as_json: bool) -> None:
    """Rebuilds classic deep-learning papers and measures them against what they printed.

    bash reproduce.sh lists the papers; bash reproduce.sh PAPER runs one.
    """
    if ctx.invoked_subcommand is None:
        from common.cli.listing import show_papers

        show_papers(as_json)
    elif as_json:
        raise UsageError(f"--json comes after the command: bash reproduce.sh {ctx.invoked_subcommand} ... --json.")


# ---- running ---------------------------------------------------------------


def run_paper(paper: Paper, *, as_json: bool, check: bool, nproc: int | None, **options: Any) -> None:
    from common.cli.closing import print_closing
    from common.cli.run_seeds import launched

    def print_json(closing: "Closing") -> None:
        click.echo(json.dumps(closing.as_dict(), indent=1))

    code = launched(paper, nproc, click.get_current_context().obj)
    if code is None:
        _run_and_show(paper, print_json if as_json else print_closing, check, **options)
    elif code:
        sys.exit(code)


def _run_and_show(paper: Paper, show: Callable[["Closing"], None], check: bool, **options: Any) -> None:
    """Run every seed, show what came out, then say what is wrong with it.

    Args:
        show: called with the `Closing` once all seeds have run.

    Raises:
        UserError: as the exit codes say; NumbersError and CheckFailed only after `show`.
    """
    from common.cli.closing import close, say_what_it_is_not
    from common.cli.run_seeds import run_seeds

    context = click.get_current_context()
    known = [option.opts[0] for option in RUN_OPTIONS]
    records = run_seeds(paper, context.args, context.obj, options=known, **options)
    closing = close(paper, records, options["runs_dir"], context.obj)
    show(closing)
    say_what_it_is_not(closing)
    closing.require_no_failure()
    if check:
        closing.require_claims()


# --variant and --nproc are accepted only to be refused with a reason.
@front.command("all", params=[click.Option(["--variant"], hidden=True), *RUN_OPTIONS[1:]])
def run_all(as_json: bool, check: bool, nproc: int | None, **options: Any) -> None:
    """Run the default variant of every paper; one that fails does not stop the others."""
    from common.base.progress import warn
    from common.cli.closing import print_closing

    if options["variant"]:
        raise UsageError("all takes no --variant: each paper has its own. bash reproduce.sh PAPER --variant NAME.")
    if nproc:
        raise UsageError("all takes no --nproc: not every paper trains on several devices.")
    names = find_papers()
    results: dict[str, dict] = {}
    failures: dict[str, UserError] = {}

    def collect(closing: "Closing") -> None:
        results[closing.paper.name] = closing.as_dict()

    for name in names:
        try:
            paper = load_paper(name)
            if why := _not_for_this_machine(paper, **options):
                warn(why)
                results[name] = {"paper": name, "skipped": why}
                continue
            with memory_told():
                _run_and_show(paper, collect if as_json else print_closing, check, **options)
        except Interrupted:
            raise
        except UserError as error:
            _complain(f"{name}: {error}")
            failures[name] = error
            results.setdefault(name, {"paper": name, "error": str(error)})
    if as_json:
        click.echo(json.dumps(list(results.values()), indent=1))
    if failures:
        first = next(iter(failures.values()))
        raise SomeFailed(first, f"{len(failures)} of {len(names)} papers failed: {', '.join(failures)}.")


def _not_for_this_machine(paper: Paper, *, preset: str, device: str, data: str, **_: Any) -> str:
    """Why `all` does not run a paper here, and what runs here instead; '' if it does.

    A default variant is one that a laptop can finish; one that is not may take a day, which nobody asked for.
    """
    from common.cli.run_seeds import made_for_gpu
    from common.training.device import choose_device

    if preset != "full" or data == "standin" or not made_for_gpu(paper, paper.default_variant):
        return ""
    if choose_device(device, paper.name, paper.module("train").DEVICES) != "cpu":
        return ""
    quick = f"bash reproduce.sh {paper.name} --preset quick"
    return f"{paper.name} is skipped: {paper.default_variant} needs a GPU. On a CPU: {quick}"


# ---- the other commands ----------------------------------------------------


@front.command("list", params=[JSON_OPTION])
@click.argument("paper", required=False)
def list_variants(paper: str | None, as_json: bool) -> None:
    """The variants of a paper: what each is, its data, the time it takes; without a name, every paper in a line."""
    from common.cli.listing import show_papers, show_variants

    if paper:
        show_variants(load_paper(paper), as_json)
    else:
        show_papers(as_json)


@front.command("eval", params=[DATA_DIR_OPTION, DEVICE_OPTION, JSON_OPTION])
@click.argument("paper")
@click.option(
    "--variant", help="Whose recipe the weights belong to.  [default: all published; with --weights what the file says]"
)
@click.option(
    "--weights",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Measure these files.  [default: the published ones]",
)
@click.option("--released", is_flag=True, help="Measure the weights that others released beside the paper.")
@click.option("--image", type=click.Path(path_type=Path), help="Restore this picture instead, where a paper can.")
@click.option("--output", type=click.Path(path_type=Path), help="Where to write it.  [default: NAME-restored.png]")
def evaluate(
    paper: str,
    variant: str | None,
    files: tuple[Path, ...],
    released: bool,
    image: Path | None,
    output: Path | None,
    data_dir: Path | None,
    device: str,
    as_json: bool,
) -> None:
    """Measure weights on the real test data, without training."""
    from common.publishing.measure import measure_files, measure_published
    from common.publishing.released import measure_released

    loaded = load_paper(paper)
    if variant:
        loaded.variant(variant)
    if output and not image:
        raise UsageError("--output goes with --image.")
    if released and (files or image):
        raise UsageError("--released goes with neither --weights nor --image.")
    if image and (as_json or data_dir):
        raise UsageError("--json and --data-dir do not go with --image.")
    if image:
        from common.cli.restore_image import restore_image

        restore_image(loaded, variant, list(files), image, output, device)
    elif released:
        measure_released(loaded, variant, data_dir, device, as_json)
    elif files:
        measure_files(loaded, variant, list(files), data_dir, device, as_json)
    else:
        measure_published(loaded, variant, data_dir, device, as_json)


@front.command(params=[JSON_OPTION])
@click.argument("name", required=False)
def data(name: str | None, as_json: bool) -> None:
    """Fetch and verify a dataset, or a paper's, into data/; without a name, every passport."""
    from common.cli.listing import fetch_data, show_passports

    if name:
        fetch_data(name, as_json)
    else:
        show_passports(as_json)


@front.command()
@click.argument("paper")
@click.option("--runs-dir", type=FOLDER, default=paths.RUNS, help="Where the runs are.  [default: runs/]")
@click.option("--data-dir", type=FOLDER, help="Look for data here first (only read).")
@click.option("--replace", is_flag=True, help="Replace records of the same seeds; what they said is kept.")
@click.option("--released", is_flag=True, help="Measure released weights instead, and keep the records.")
def publish(paper: str, runs_dir: Path, data_dir: Path | None, replace: bool, released: bool) -> None:
    """Copy finished records and weights from runs/ into results/; rebuild the tables."""
    from common.publishing.publish import publish_runs
    from common.publishing.released import publish_released

    if released and replace:
        raise UsageError("--replace does not go with --released.")
    if released:
        publish_released(load_paper(paper), data_dir)
    else:
        publish_runs(load_paper(paper), runs_dir, data_dir, replace)


@front.command(params=[JSON_OPTION])
def table(as_json: bool) -> None:
    """Rebuild every table and figure from the published records."""
    from common.pages.tables import rebuild

    written = [str(path.relative_to(paths.ROOT)) for path in rebuild()]
    click.echo(json.dumps(written, indent=1) if as_json else "\n".join(written))


@front.command(params=[DATA_DIR_OPTION, JSON_OPTION])
@click.argument("paper", required=False)
@click.option("--rerun", "seed", type=click.IntRange(0), help="Train this published seed again too, and compare.")
@click.option("--variant", help="Whose seed --rerun trains.  [default: the paper's]")
def verify(paper: str | None, seed: int | None, variant: str | None, data_dir: Path | None, as_json: bool) -> None:
    """Check records against each other, the git history, weights, figures and tables; self-check determinism."""
    from common.publishing.verify import verify_papers

    papers = [load_paper(paper)] if paper else [load_paper(name) for name in find_papers()]
    if seed is None and variant:
        raise UsageError("--variant goes with --rerun.")
    if seed is not None and not paper:
        raise UsageError("--rerun needs a paper: bash reproduce.sh verify PAPER --rerun SEED.")
    again = None if seed is None else (papers[0].variant(variant), seed)
    verify_papers(papers, data_dir, as_json, again)


@front.command(params=[JSON_OPTION])
@click.argument("paper")
@click.option("--claim", metavar="ID", help="And of what was measured of a claim; results/comparison.csv has the ids.")
def cite(paper: str, claim: str | None, as_json: bool) -> None:
    """BibTeX of the paper and of this reproduction."""
    from common.cli.citing import bibtex

    entries = bibtex(load_paper(paper), claim)
    click.echo(json.dumps(entries) if as_json else "\n\n".join(entries))


@front.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("--output", type=click.Path(path_type=Path), default=Path("curves.png"), show_default=True)
def plot(runs: tuple[Path, ...], output: Path) -> None:
    """Draw the curves of runs beside those of the published seeds; RUN is a folder below runs/."""
    from common.cli.plot import plot_runs

    plot_runs(list(runs), output)


@front.command(params=[JSON_OPTION])
@click.argument("paper", required=False)
@click.option(
    "--growth", is_flag=True, help="How time grows instead: with seeds, batches, pictures, processes, records."
)
@click.option("--keep", is_flag=True, help="Measure both, of every paper, and keep them in results/speed for the page.")
def bench(paper: str | None, growth: bool, keep: bool, as_json: bool) -> None:
    """Time each paper's training step and evaluation against the straightforward way."""
    from common.publishing.bench import keep_speed, run_benchmarks, run_growth

    if keep and (paper or growth or as_json):
        raise UsageError("--keep measures everything, of every paper: leave the other words out.")
    papers = [load_paper(paper).name] if paper else find_papers()
    if keep:
        keep_speed(papers)
    elif growth:
        run_growth(papers, not paper, as_json)
    else:
        run_benchmarks(papers, as_json)


@front.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def test(words: tuple[str, ...]) -> None:
    """Run the tests, one process per processor; further words go to pytest."""
    import subprocess

    command = [sys.executable, "-m", "pytest", "--numprocesses", "auto", "--dist", "loadfile", *words]
    threads = {"OMP_NUM_THREADS": "1"}  # the processes share the processors already
    sys.exit(subprocess.run(command, cwd=paths.ROOT, env={**os.environ, **threads}).returncode)


# ---- entry points ----------------------------------------------------------


def main(words: list[str] | None = None) -> None:
    """Run one command and exit with the documented code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no ± has a ? there
    try:
        _require_working_folder()
        words = sys.argv[1:] if words is None else words
        with memory_told(), front.make_context("bash reproduce.sh", list(words), obj=words) as context:
            front.invoke(context)
        if sys.stdout:  # there is none after `>&-`
            sys.stdout.flush()
        code = 0
    except UserError as error:
        code = error.code
        _report(error)
    except click.exceptions.Exit as ended:  # after --help
        code = ended.exit_code
    except click.NoSuchOption as error:
        code = 2
        _complain(f"There is no option {error.option_name}.{nearest(error.option_name, error.possibilities or [])}")
    except click.ClickException as error:
        code = 2
        _complain(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        code = 130
        _complain("Interrupted.")
    except BrokenPipeError:
        code = READER_LEFT
        _drop_output()
    except OSError as error:
        if error.errno not in DISK_FAULTS + PATH_FAULTS:
            raise
        code = MachineError.code if error.errno in DISK_FAULTS else UsageError.code
        _complain(f"{error.filename or 'The output cannot be written'}: {error.strerror}.")
        _drop_output()
    sys.exit(code)


def _drop_output() -> None:
    """What could not be written would be tried once more when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _report(error: UserError) -> None:
    """What ends the command; of several processes, one reports it."""
    if "RANK" in os.environ:
        from common.training.processes import left_to_launcher

        if left_to_launcher(error):
            return
    if str(error):
        _complain(str(error))


def _require_working_folder() -> None:
    """
    Raises:
        MachineError: it was deleted meanwhile, with which PyTorch's libraries end in words of their own.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise MachineError("The folder that this was started in has been deleted: start it in another.") from None


def _complain(text: str) -> None:
    print(text, file=sys.stderr)


def run_paper_module(file: str) -> None:
    """`python -m papers.<name>.train` is `bash reproduce.sh <name>`."""
    main([Path(file).parent.name, *sys.argv[1:]])


def eval_paper_module(file: str) -> None:
    """`python -m papers.<name>.eval` is `bash reproduce.sh eval <name>`."""
    main(["eval", Path(file).parent.name, *sys.argv[1:]])
