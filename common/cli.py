"""The command line behind reproduce.sh, and the only place that turns errors into exit codes.

Nothing here imports torch until a command needs it.
"""

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import click

from common import layout
from common.errors import (
    DataAbsent,
    Interrupted,
    MachineError,
    NumbersError,
    SomeFailed,
    UsageError,
    UserError,
    nearest,
)
from common.papers import Paper, find_papers, load_paper


class Front(click.Group):
    """`bash reproduce.sh WORD ...`: WORD is a command or the name of a paper."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*self.commands, *find_papers()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in self.commands:
            return self.commands[name]
        return PaperCommand(name) if name in find_papers() else None

    def resolve_command(self, ctx: click.Context, args: list[str]):
        known = [*self.commands, *find_papers()]
        if self.get_command(ctx, args[0]) is None:
            suggestion = nearest(args[0], known)
            raise UsageError(
                f"{args[0]!r} is neither a paper nor a command.{suggestion} `bash reproduce.sh` lists them."
            )
        return super().resolve_command(ctx, args)


class NearChoice(click.Choice):
    """A choice that suggests the nearest word."""

    def convert(self, value, param, ctx):
        if value in self.choices:
            return value
        known = ", ".join(self.choices)
        return self.fail(f"{value!r} is none of {known}.{nearest(str(value), self.choices)}", param, ctx)


LARGEST_SEED = 2**31


class Seeds(click.ParamType):
    """'0,1,2' as a tuple of different whole numbers, none negative."""

    name = "LIST"

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        words = value.split(",")
        if not all(word.strip().isdecimal() and int(word) < LARGEST_SEED for word in words):
            return self.fail(f"{value!r}: seeds are whole numbers with commas between, as in 0,1,2.", param, ctx)
        return tuple(dict.fromkeys(int(word) for word in words))


FOLDER = click.Path(file_okay=False, path_type=Path)
JSON_OPTION = click.Option(["--json", "as_json"], is_flag=True, help="Print the result as JSON.")
DATA_DIR_OPTION = click.Option(["--data-dir"], type=FOLDER, help="Look for data here first (only read).")
DEVICE_OPTION = click.Option(["--device"], type=NearChoice(["auto", "cpu", "cuda"]), default="auto")
PRESET_HELP = (
    "full: the whole recipe. quick: minutes, to see it learn. smoke: seconds, on the stand-in.  [default: full]"
)
DATA_HELP = "auto: the stand-in where the real data cannot be had.  [default: auto]"
RUN_OPTIONS = [
    click.Option(["--variant"], help="Which variant; the list names them.  [default: the paper's]"),
    click.Option(["--preset"], type=NearChoice(layout.PRESETS), default="full", help=PRESET_HELP),
    click.Option(["--seeds"], type=Seeds(), default="0", help="As in 0,1,2.", show_default=True),
    DEVICE_OPTION,
    click.Option(["--data"], type=NearChoice(["auto", "real", "standin"]), default="auto", help=DATA_HELP),
    DATA_DIR_OPTION,
    click.Option(["--runs-dir"], type=FOLDER, default=layout.RUNS, help="Where runs are kept.  [default: runs/]"),
    click.Option(["--fresh"], is_flag=True, help="Start over instead of resuming or reusing."),
    click.Option(["--check"], is_flag=True, help="Exit with 1 unless every claim is reproduced or exceeded."),
    JSON_OPTION,
]  # fmt: skip


class PaperCommand(click.Command):
    """A paper's run: the options of every run, and any field of its recipe."""

    def __init__(self, name: str):
        super().__init__(
            name,
            params=RUN_OPTIONS,
            callback=lambda **options: run_paper(load_paper(name), **options),
            help=f"Train, evaluate and record {name}; then its table.",
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Only here does help need the recipe, and with it torch."""
        fields = dataclasses.fields(load_paper(self.name).module("train").Recipe)
        with formatter.section("Any field of the recipe (the run is then marked modified and never published)"):
            formatter.write_dl(
                [(f"--{field.name.replace('_', '-')}", f"default {field.default!r}") for field in fields]
            )


@click.group(cls=Front, invoke_without_command=True, context_settings={"max_content_width": 110})
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
@click.pass_context
def front(ctx: click.Context, as_json: bool) -> None:
    """Rebuilds classic deep-learning papers and measures them against what they printed.

    bash reproduce.sh lists the papers; bash reproduce.sh PAPER runs one.
    """
    if ctx.invoked_subcommand is None:
        from common.listing import show_papers

        show_papers(as_json)


# ---- running ---------------------------------------------------------------


def run_paper(paper: Paper, *, as_json: bool, check: bool, **options) -> None:
    from common.report import print_closing

    def print_json(closing) -> None:
        click.echo(json.dumps(closing.as_dict(), indent=1))

    _run_and_show(paper, print_json if as_json else print_closing, check, **options)


def _run_and_show(paper: Paper, show: Callable, check: bool, **options) -> None:
    """Run every seed, show what came out, then say what is wrong with it.

    Args:
        show: called with the `Closing` once all seeds have run.

    Raises:
        UserError: as the exit codes say; NumbersError and CheckFailed only after `show`.
    """
    from common.report import close, say_what_it_is_not

    closing = close(paper, _run_seeds(paper, **options))
    show(closing)
    say_what_it_is_not(closing)
    closing.require_no_failure()
    if check:
        closing.require_claims()


def _run_seeds(paper: Paper, *, variant, preset, seeds, device, data, data_dir, runs_dir, fresh) -> list:
    """The records of all seeds; one whose numbers go bad does not keep the others from running."""
    from common.device import choose_device
    from common.progress import warn
    from common.run import Job

    variant = paper.variant(variant)
    train, overrides = paper.module("train"), click.get_current_context().args
    override(train.recipe(variant, preset), overrides)  # a slip is told before data is looked for
    device = choose_device(device, paper.name, train.DEVICES)
    located = find_data(paper, variant, preset, data, data_dir)
    if preset == "full" and device == "cpu" and made_for_gpu(paper, variant) and located.folder:
        warn(f"{variant} is made for a GPU: on a CPU it may take days. --preset quick is for CPUs.")
    planned = train.recipe(variant, preset, located.standin)
    recipe = override(planned, overrides)
    rest = (recipe, recipe != planned, located, device, runs_dir, fresh, _command())
    return [_run_seed(Job(paper, variant, preset, seed, *rest)) for seed in seeds]


def made_for_gpu(paper: Paper, variant: str) -> bool:
    return any(claim.needs.device == "GPU" for claim in paper.claims if claim.variant == variant)


def _run_seed(job):
    """The record of one seed, a failed one too."""
    from common.progress import say
    from common.records import read_record
    from common.run import run_job

    try:
        record, reused = run_job(job)
    except NumbersError as error:
        say(str(error))
        return read_record(job.record_file)
    if reused:
        say(f"seed {record.seed} was finished before and is shown as it was; --fresh runs it again.")
    return record


def _command() -> str:
    """The command as the user would type it again, without the folders of this machine."""
    words, skip = [], False
    for word in click.get_current_context().obj:
        if skip or word.startswith(("--data-dir=", "--runs-dir=")):
            skip = False
        elif word in ("--data-dir", "--runs-dir"):
            skip = True
        else:
            words.append(word)
    return shlex.join(["bash", "reproduce.sh", *words])


def find_data(paper: Paper, variant: str, preset: str, mode: str, data_dir: Path | None):
    """The real data if it can be had and is wanted, else the stand-in, said aloud.

    Raises:
        DataError: damaged data; or absent data, where real data is asked for.
    """
    from common.passports import LocatedData, locate
    from common.progress import say, warn

    passport = paper.passport(variant)
    standin = LocatedData(passport.name, layout.STANDIN, None, {})
    if preset == "smoke" or mode == "standin":
        return standin
    try:
        return locate(passport, data_dir)
    except DataAbsent as absent:
        say(f"{absent} Fetching it.")
    try:
        from common.fetch import fetch

        return fetch(passport, say)
    except (DataAbsent, MachineError) as absent:
        if mode == "real":
            raise DataAbsent(
                f"{absent} Put it into data/{passport.folder} or name its folder with --data-dir."
            ) from None
        warn(f"STAND-IN DATA: {absent} This run uses {passport.standin}: its numbers say nothing about the paper.")
        return standin


def override(recipe, words: list[str]):
    """The recipe with `--field value` pairs put in.

    Raises:
        UsageError: no such field, no value, or a value of the wrong kind.
    """
    import pydantic

    fields = {f"--{field.name.replace('_', '-')}": field for field in dataclasses.fields(recipe)}
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]
    changes = {}
    for name, value in zip(words[::2], [*words[1::2], None], strict=False):
        if not name.startswith("--"):
            raise UsageError(f"{name!r} is no option.")
        if name not in fields:
            options = [option.opts[0] for option in RUN_OPTIONS]
            raise UsageError(f"There is no option {name}.{nearest(name, [*fields, *options])}")
        if value is None:
            raise UsageError(f"{name} needs a value.")
        kind = pydantic.TypeAdapter(fields[name].type, config=pydantic.ConfigDict(allow_inf_nan=False))
        try:
            structured = value.startswith("[")
            changes[fields[name].name] = kind.validate_json(value) if structured else kind.validate_python(value)
        except pydantic.ValidationError as error:
            raise UsageError(f"{name} {value}: {error.errors()[0]['msg']}.") from None
    return dataclasses.replace(recipe, **changes)


@front.command("all", params=RUN_OPTIONS)
def run_all(as_json, check, **options) -> None:
    """Run the default variant of every paper; one that fails does not stop the others."""
    from common.report import print_closing

    names, results, failures = find_papers(), {}, {}

    def collect(closing) -> None:
        results[closing.paper.name] = closing.as_dict()

    for name in names:
        try:
            _run_and_show(load_paper(name), collect if as_json else print_closing, check, **options)
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


# ---- the other commands ----------------------------------------------------


@front.command("eval", params=[DATA_DIR_OPTION, DEVICE_OPTION, JSON_OPTION])
@click.argument("paper")
@click.option(
    "--variant", help="Whose recipe the weights belong to.  [default: all published; with --weights the paper's]"
)
@click.option(
    "--weights",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Measure these files.  [default: the published ones]",
)
@click.option("--image", type=click.Path(path_type=Path), help="Restore this picture instead, where a paper can.")
@click.option("--output", type=click.Path(path_type=Path), help="Where to write it.  [default: NAME-restored.png]")
def evaluate(paper, variant, files, image, output, data_dir, device, as_json) -> None:
    """Measure weights on the real test data, without training."""
    from common.measure import measure_files, measure_published

    loaded = load_paper(paper)
    if variant:
        loaded.variant(variant)
    if output and not image:
        raise UsageError("--output goes with --image.")
    if image and (as_json or data_dir):
        raise UsageError("--json and --data-dir do not go with --image.")
    if image:
        from common.restore import restore_image

        restore_image(loaded, variant, list(files), image, output, device)
    elif files:
        measure_files(loaded, loaded.variant(variant), list(files), data_dir, device, as_json)
    else:
        measure_published(loaded, variant, data_dir, device, as_json)


@front.command(params=[JSON_OPTION])
@click.argument("name", required=False)
def data(name, as_json) -> None:
    """Fetch and verify a dataset, or a paper's, into data/; without a name, every passport."""
    from common.listing import fetch_data, show_passports

    if name:
        fetch_data(name, as_json)
    else:
        show_passports(as_json)


@front.command()
@click.argument("paper")
@click.option("--runs-dir", type=FOLDER, default=layout.RUNS, help="Where the runs are.  [default: runs/]")
@click.option("--data-dir", type=FOLDER, help="Look for data here first (only read).")
def publish(paper, runs_dir, data_dir) -> None:
    """Copy finished records and small weights from runs/ into results/; rebuild the tables."""
    from common.publish import publish_runs

    publish_runs(load_paper(paper), runs_dir, data_dir)


@front.command()
def table() -> None:
    """Rebuild every table and figure from the published records."""
    from common.tables import rebuild

    for path in rebuild():
        click.echo(path.relative_to(layout.ROOT))


@front.command(params=[DATA_DIR_OPTION, JSON_OPTION])
@click.argument("paper", required=False)
def verify(paper, data_dir, as_json) -> None:
    """Check records, re-measure published weights, rebuild tables, self-check determinism."""
    from common.verify import verify_papers

    verify_papers([load_paper(paper)] if paper else [load_paper(name) for name in find_papers()], data_dir, as_json)


@front.command(params=[JSON_OPTION])
@click.argument("paper")
def cite(paper, as_json) -> None:
    """BibTeX of the paper and of this reproduction."""
    from common.listing import bibtex

    entries = bibtex(load_paper(paper))
    click.echo(json.dumps(entries) if as_json else "\n\n".join(entries))


@front.command(params=[JSON_OPTION])
@click.argument("paper", required=False)
def bench(paper, as_json) -> None:
    """Time each paper's training step and evaluation against the straightforward way."""
    from benchmarks.run import run_benchmarks

    run_benchmarks([load_paper(paper).name] if paper else find_papers(), as_json)


@front.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def test(words) -> None:
    """Run the tests, one process per processor; further words go to pytest."""
    import subprocess

    command = [sys.executable, "-m", "pytest", "--numprocesses", "auto", "--dist", "loadfile", *words]
    threads = {"OMP_NUM_THREADS": "1"}  # the processes share the processors already
    sys.exit(subprocess.run(command, cwd=layout.ROOT, env={**os.environ, **threads}).returncode)


# ---- entry points ----------------------------------------------------------


def main(words: list[str] | None = None) -> None:
    """Run one command and exit with the documented code."""
    try:
        words = sys.argv[1:] if words is None else words
        front.main(words, prog_name="bash reproduce.sh", standalone_mode=False, obj=words)
        code = 0
    except UserError as error:
        code = error.code
        _complain(str(error))
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
        code = 0
    sys.exit(code)


def _complain(text: str) -> None:
    print(text, file=sys.stderr)


def run_paper_module(file: str) -> None:
    """`python -m papers.<name>.train` is `bash reproduce.sh <name>`."""
    main([Path(file).parent.name, *sys.argv[1:]])


def eval_paper_module(file: str) -> None:
    """`python -m papers.<name>.eval` is `bash reproduce.sh eval <name>`."""
    main(["eval", Path(file).parent.name, *sys.argv[1:]])
