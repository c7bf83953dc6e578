"""Options of the subcommands, and which function each one calls."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import nr_tracking
from nr_tracking.atomic import check_replaceable
from nr_tracking.commands.batch_options import add_batch
from nr_tracking.commands.bench_options import add_bench_options, run_bench
from nr_tracking.commands.synthesis import add_synthesize_options
from nr_tracking.config import PRESETS, Config
from nr_tracking.data.sequence import is_sequence
from nr_tracking.presets import PRESET_MEANING
from nr_tracking.training.schedule import SCHEDULES
from nr_tracking.types import InputError
from nr_tracking.wording import counted

if TYPE_CHECKING:
    from nr_tracking.commands.track import Tracked

DEMO = "demo"
"""The subcommand whose options belong to :mod:`nr_tracking.commands.demo`."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse a command line; ``run`` of the result is the function that does it. Exits on bad usage and ``--help``."""
    parser = argparse.ArgumentParser(prog="nr_tracking", description=nr_tracking.__doc__.split("\n")[0])
    parser.add_argument("--version", action="version", version=f"nr_tracking {nr_tracking.__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_track(commands.add_parser("track", help="a recording in, surfaces and tracks out"))
    _add_batch(commands.add_parser("batch", help="track many recordings in parallel, here or on a cluster"))
    _add_evaluate(commands.add_parser("evaluate", help="score on recordings with ground truth"))
    _add_bench(commands.add_parser("bench", help="measure speed and memory on this machine"))
    _add_config(commands.add_parser("config", help="print a configuration as YAML"))
    _add_train(commands.add_parser("train", help="train networks on windows made by synthesize"))
    _add_view(commands.add_parser("view", help="look at an OUTPUT in the rerun viewer"))
    add_synthesize_options(
        commands.add_parser("synthesize", help="make training windows or test recordings of characters")
    )
    commands.add_parser(DEMO, help="a generated dancer through the real node: record, replay, track, score")
    return parser.parse_args(arguments)


def _add_settings(parser: argparse.ArgumentParser, default: str = "the best that has weights") -> None:
    group = parser.add_argument_group("settings")
    group.add_argument("--preset", choices=PRESETS, help=f"{PRESET_MEANING} (default: {default})")
    group.add_argument("--device", choices=("cpu", "cuda"), help="where the network runs")
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML settings, as `nr_tracking config` prints them, or parameters of a node",
    )
    group.add_argument(
        "--set", action="append", metavar="KEY=VALUE", help="one setting, such as window.stride=1; may be repeated"
    )


def _add_track(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="INPUT", help="SEQUENCE folder, rosbag2, or folder of bags")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT", help="folder to write or replace")
    parser.add_argument("--start", type=int, default=0, metavar="S", help="first frame (default 0)")
    parser.add_argument("--frames", type=int, metavar="N", help="number of frames (default: to the end)")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run of the same request")
    parser.add_argument("--depth-topic", metavar="TOPIC", help="topic of the depth images in a bag")
    parser.add_argument("--camera-info-topic", metavar="TOPIC", help="topic of the camera info in a bag")
    parser.add_argument("--every-camera", action="store_true", help="track each camera of a bag, into OUT/NAME")
    _add_settings(parser)
    parser.set_defaults(run=_track)


def _add_batch(parser: argparse.ArgumentParser) -> None:
    add_batch(parser)
    _add_settings(parser)


def _track(options: argparse.Namespace) -> int:
    config = _config(options)
    _refuse_topics(options)
    from nr_tracking.commands.recordings import open_recordings
    from nr_tracking.commands.track import track

    failed = 0

    def fault(path: Path, error: InputError) -> None:
        nonlocal failed
        print(f"nr_tracking: {path.name}: {error}", file=sys.stderr)  # the others can do without it
        failed += 1

    recordings = open_recordings(
        options.input,
        depth_topic=options.depth_topic,
        camera_info_topic=options.camera_info_topic,
        every_camera=options.every_camera,
        ros=config.ros,
        on_fault=fault,
    )
    several = len(recordings) + failed > 1
    for recording in recordings:
        output = options.output / recording.name if several else options.output
        try:
            done = track(recording, output, config, start=options.start, frames=options.frames, resume=options.resume)
        except InputError as error:
            if not several:
                raise
            fault(Path(recording.name), error)
            continue
        _tell(recording.name, done)
    return 2 if failed else 0


def _refuse_topics(options: argparse.Namespace) -> None:
    """Raise an :class:`InputError` for options about the topics of a bag that would do nothing."""
    given = [name for name in ("depth_topic", "camera_info_topic", "every_camera") if getattr(options, name)]
    spelt = [f"--{name.replace('_', '-')}" for name in given]
    if given and is_sequence(options.input):
        raise InputError("bad_request", f"{spelt[0]} is for bags: {options.input} is a SEQUENCE, of one camera")
    if options.every_camera and len(given) > 1:
        raise InputError("bad_request", f"{spelt[0]} and --every-camera exclude each other: those are all its topics")


def _tell(name: str, done: Tracked) -> None:
    """Print what became of a recording."""
    from nr_tracking.evaluation.scoreboard import score_table

    print(f"{name}: {done.run.tracked} of {done.run.frames} frames tracked; see {done.output / 'report.html'}")
    for row, reason in done.run.dropped.items():
        print(f"nr_tracking: frame {row} dropped: {reason}", file=sys.stderr)
    for notice in done.run.notices:
        print(f"nr_tracking: {notice}", file=sys.stderr)
    if done.scores:
        print(score_table(done.scores), end="")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sequences", type=Path, nargs="+", metavar="SEQ", help="SEQUENCE with ground truth, or a folder of them"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="write scores.json, scores.csv and report.html")
    parser.add_argument("--tracked", type=Path, metavar="OUT", help="score this OUTPUT of the one SEQ; do not track")
    parser.add_argument("--length", type=int, default=17, help="frames of a sub-sequence (default 17)")
    parser.add_argument("--start-stride", type=int, metavar="N", help="frames between starts (default 17)")
    parser.add_argument("--offset", type=int, metavar="N", help="frames skipped at the beginning (default 0)")
    parser.add_argument("--points", type=int, default=100_000, help="points for IoU, CD and Corr (default 100000)")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the points (default 0)")
    parser.add_argument("--baselines", action="store_true", help="score methods without a network in the same run")
    _add_settings(parser)
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    config = None if options.tracked else _config(options)
    from nr_tracking.commands.evaluate import (
        SCORES,
        check_scorable,
        evaluate,
        evaluate_baselines,
        evaluate_output,
        find_sequences,
        too_short,
        write_scores,
    )
    from nr_tracking.data.sequence import Sequence, read_sequence
    from nr_tracking.evaluation.protocol import Scores
    from nr_tracking.evaluation.scoreboard import score_table
    from nr_tracking.tracking.result import read_output

    if options.output:
        check_replaceable(options.output, SCORES)
    sequences = [read_sequence(path) for path in find_sequences(options.sequences)]
    for sequence in sequences:
        for notice in sequence.notices:
            print(f"nr_tracking: {sequence.path}: {notice}", file=sys.stderr)
    baselines: list[Scores] = []
    short: list[Sequence] = []
    if config is None:
        if options.baselines:
            raise InputError("bad_request", "--baselines and --tracked exclude each other: baselines track anew")
        for name in ("start_stride", "offset", "seed", "preset", "device", "config", "set"):
            if getattr(options, name) is not None:
                option = name.replace("_", "-")
                raise InputError("bad_request", f"--{option} is for tracking anew and does nothing beside --tracked")
        if len(sequences) != 1:
            raise InputError("bad_request", f"--tracked takes one SEQ, the one OUT was made from, not {len(sequences)}")
        output = read_output(options.tracked)
        scores = evaluate_output(output, sequences[0], length=options.length, points=options.points)
    else:
        named = ("length", "start_stride", "offset", "points", "seed")
        protocol = {name: value for name in named if (value := getattr(options, name)) is not None}
        check_scorable(sequences)
        offset = options.offset or 0
        needs = f"a sub-sequence needs {options.length} after offset {offset} (--length, --offset)"
        short = too_short(sequences, options.length, offset)
        for sequence in short if len(short) < len(sequences) else []:  # none is left: the error says so
            has = counted(len(sequence), "frame")
            print(f"nr_tracking: {sequence.path} is left out: it has {has}, {needs}", file=sys.stderr)
        scores = evaluate(sequences, config, **protocol)
        if options.baselines:
            baselines = evaluate_baselines(sequences, config, **protocol)
    print(score_table(scores, baselines), end="")
    if options.output:
        left_out = [sequence.path.resolve().name for sequence in short]
        print(f"see {write_scores(options.output, scores, config, baselines, left_out) / 'report.html'}")
    return 0


def _add_bench(parser: argparse.ArgumentParser) -> None:
    add_bench_options(parser)
    _add_settings(parser)
    parser.set_defaults(run=lambda options: run_bench(options, _config(options)))


def _add_config(parser: argparse.ArgumentParser) -> None:
    _add_settings(parser)
    parser.set_defaults(run=_print_config)


def _print_config(options: argparse.Namespace) -> int:
    from nr_tracking.commands.settings import config_yaml

    print(config_yaml(_config(options)), end="")
    return 0


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "cache", type=Path, metavar="CACHE", help="folder of windows or file of clips, made by synthesize"
    )
    parser.add_argument("--run", type=Path, required=True, dest="run_folder", metavar="DIR", help="checkpoints and log")
    parser.add_argument(
        "--schedule", choices=SCHEDULES, default="completion", help="what is trained (default completion)"
    )
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int, help="steps to train")
    length.add_argument("--minutes", type=float, help="minutes to train")
    parser.add_argument("--validation", type=Path, metavar="CACHE", help="folder of held-out windows")
    parser.add_argument("--start", type=Path, metavar="FILE", help="weights to begin with")
    _add_settings(parser, default="lite")
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    config = _config(options, default_preset="lite")
    from nr_tracking.training.trainer import train

    weights = train(
        config,
        options.cache,
        options.run_folder,
        schedule=options.schedule,
        steps=options.steps,
        minutes=options.minutes,
        start=options.start,
        validation=options.validation,
        report=lambda line: print(line, file=sys.stderr),
    )
    print(f"weights: {weights}")
    return 0


def _add_view(parser: argparse.ArgumentParser) -> None:
    shown = parser.add_mutually_exclusive_group(required=True)
    shown.add_argument("output", type=Path, nargs="?", metavar="OUT", help="OUTPUT folder of `nr_tracking track`")
    shown.add_argument("--live", metavar="NODE", help="a running node, such as /nr_tracking, in place of OUT")
    parser.add_argument("--web", action="store_true", help="show it in a browser")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write a .rrd file instead of opening the viewer")
    parser.set_defaults(run=_view)


def _view(options: argparse.Namespace) -> int:
    if options.web and options.save:
        raise InputError("bad_request", "--web and --save exclude each other: a file is written, or a browser shows it")
    from nr_tracking.commands.view import view, view_node

    if options.live:
        view_node(options.live, options.save, options.web)
    else:
        view(options.output, options.save, options.web)
    return 0


def _config(options: argparse.Namespace, default_preset: str | None = None) -> Config:
    from nr_tracking.commands.settings import choose_config

    return choose_config(options.preset, options.config, options.set, options.device, default_preset)
