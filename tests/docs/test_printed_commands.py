"""Every command that README, CHANGELOG and docs print is one that works: its names, options and values exist,
and a test runs it, where RUN_BY says.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest
import yaml

ROOT = Path(__file__).parents[2]


def _support(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"tests_support_{name}", ROOT / f"tests/support/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = _support("printed")
PRINTED = pages.on_the_pages()
OURS = [p for p in PRINTED if p.words[0] == "viewsync"]

# A command with its options (some of them, or other values, are covered too; "!": never without this one) ->
# the test that runs it.
RUN_BY = {
    "edge --view --hub --bundle --keys": "test_ones_own_cameras_as_the_readme_has_it",
    "edge --view --listen! --bundle": "test_a_simulated_camera_and_an_agent_as_the_page_has_it",
    "edge --config! --set": "test_the_command_runs_says_how_it_is_and_stops_on_a_signal",
    "hub --bundle --bind --outputs --keys": "test_ones_own_cameras_as_the_readme_has_it",
    "hub --config! --set": "test_a_hub_by_its_printed_configuration",
    "subscribe --key --hub-key": "test_ones_own_cameras_as_the_readme_has_it",
    "subscribe --json": "test_subscribe_prints_lines_for_people_and_for_programs",
    "keys make --dir --hub --agent --scene --subscriber": "test_quick_ones_as_printed",
    "keys list": "test_quick_ones_as_printed",
    "doctor --for": "test_quick_ones_as_printed",
    "demo --seconds --json --picture": "test_the_command_ends_with_one_line_of_json_and_draws_a_picture",
    "calib import --format --unit --up --raise --cameras --ground --name --out --json": (
        "test_import_as_one_line_of_json_and_with_everything_said"
    ),
    "calib export --format --out": "test_export_and_back",
    "calib intrinsics --board --size --square-m --marker-m --dictionary --inverted --out": (
        "test_a_lens_from_a_folder_of_pictures_and_from_a_video"
    ),
    "calib extrinsics --lens --image --out": "test_cameras_from_points",
    "calib extrinsics --rest! --floor --lens --board --size --square-m --marker-m --out": (
        "test_cameras_from_a_board_at_rest"
    ),
    "calib refine --points --out": "test_all_cameras_agree_after_refining",
    "calib refine --rest! --board --size --square-m --marker-m --out": "test_cameras_from_a_board_at_rest",
    (
        "calib refine --video! --clock-error-s --times --board --size --square-m --marker-m --dictionary "
        "--inverted --out"
    ): "test_videos_of_a_board_tie_cameras_together_while_it_rests",
    "calib refine --corners! --clock-error-s --out": "test_corners_that_another_program_found",
    "calib compare": "test_two_calibrations_compared",
    "calib serve --frames --source --points": "test_a_point_is_clicked_named_typed_undone_and_saved",
    "calib check --points --frames --source --report --json": (
        "test_the_command_says_and_draws_what_it_finds"
    ),
    "sim camera --view --seed --people --fps --clock-offset --url": (
        "test_a_simulated_camera_and_an_agent_as_the_page_has_it"
    ),
    "sim world --out --scene --people": "test_cameras_agents_links_hub_and_the_one_who_judges",
    "sim site-camera --world --profile --view --url": "test_cameras_agents_links_hub_and_the_one_who_judges",
    "sim uplink --profile --view --scene --listen --to": (
        "test_cameras_agents_links_hub_and_the_one_who_judges"
    ),
    "sim watch --world --profile --json": "test_cameras_agents_links_hub_and_the_one_who_judges",
    "sim link --profile --view --via --seconds --json": "test_a_user_space_link_does_as_its_seed_foretells",
    "sim up --profile --seconds --report": "test_a_site_behind_relays_answers_and_reports",
    "sim sweep --profiles --policies --methods --crowds --out --no-curve --flow --gate --live": (
        "test_a_cell_is_run_live_too_and_compared"
    ),
    "sim pets2009 scene --out": "test_the_command_writes_the_scene",
    "sim pets2009 crowds --out --crowds": "test_training_crowds_are_made_once_and_carry_their_truth",
    "sim pets2009 sequences --out": "test_a_recording_is_what_came_over_rtsp_and_when",
    "sim dataset --scene --out --crowds": "test_the_command_makes_keeps_and_explains",
    "sim rigs --out --rigs --crowds": "test_the_command_makes_rigs_once_and_another_rig_never_joins",
    "evaluate --tuning-data! --checkpoint --scene --data --tuning --crowds --frames --threads --markdown": (
        "test_a_checkpoint_answers_for_a_scene_it_never_saw"
    ),
    "evaluate --checkpoint --crowds --tuning! --frames --threads --markdown": (
        "test_a_checkpoint_answers_for_a_scene_it_never_saw"
    ),
    "evaluate --checkpoint --data --crowds --tuning! --frames --threads --markdown": (
        "test_a_checkpoint_answers_for_a_scene_it_never_saw"
    ),
    "sim describe --scene --people --crowds --json": "test_the_command_prints_json",
    "train --config --out --set": "test_ctrl_c_saves_and_the_same_command_goes_on",
    "export --checkpoint --scene --out --replace --accuracy --data --crowds": (
        "test_from_checkpoint_to_a_measured_bundle_on_the_command_line"
    ),
    "evaluate --bundle --checkpoint --frames --offsets --json": (
        "test_from_checkpoint_to_a_measured_bundle_on_the_command_line"
    ),
    "sim dataset --scene --out --crowds --together! --frames": "test_the_paper_s_models_as_printed",
    "evaluate --bundle --checkpoint --data --tau --kappa": "test_the_paper_s_models_as_printed",
    "evaluate --bundle --crowds --draw!": "test_every_method_is_drawn_with_what_it_got_wrong",
    "evaluate --checkpoint --before!": "test_it_is_measured_with_frames_as_far_back_as_asked",
    "evaluate --bundle --data --crowds --tuning --frames --threads --before --markdown!": (
        "test_it_is_measured_with_second_frames_and_without"
    ),
    "evaluate --checkpoint --data --frame-rate! --same-instant": (
        "test_it_is_measured_at_the_rate_of_slow_agents"
    ),
    "evaluate --checkpoint --data --crowds --tuning --frames --frame-rate! --threads --markdown": (
        "test_it_is_measured_at_the_rate_of_slow_agents"
    ),
    "sim dataset --scene --out --crowds --frames --interval! --together": (
        "test_it_is_measured_at_the_rate_of_slow_agents"
    ),
    "evaluate --checkpoint --frames --json --tau": "test_training_goes_on_where_it_stopped_and_is_measured",
    "evaluate --sequences! --bundle --data --tuning --frames --json": "test_the_command_measures_sequences",
    "evaluate --table! --cells --steps --seeds --show --cost --threads --data --runs --start-from --set": (
        "test_a_table_is_filled_cell_by_cell_and_goes_on"
    ),
    "evaluate --by-offset! --table! --cells --data --runs --frames --show": (
        "test_cells_of_a_table_are_measured_where_they_are_trained"
    ),
    "evaluate --by-offset! --checkpoint! --data --crowds --frames --json --kappa": (
        "test_checkpoints_are_measured_once"
    ),
    "evaluate --mohicans! --checkpoint --json --picture": "test_the_command_prints_writes_and_draws",
    "evaluate --reach! --checkpoint --data --crowds --frames": "test_the_command_prints_who_is_within_reach",
    "evaluate --matches! --bundle --frames": "test_the_command_asks_a_bundle_too",
    "evaluate --matches! --checkpoint --data --crowds --frames --threads": (
        "test_the_command_prints_who_is_found"
    ),
    "data make --out --only --workers": "test_the_command_makes_a_set_once_and_carries_its_truth",
    "data scene --out": "test_the_command_writes_the_scene_that_the_files_are_read_with",
    "data check": "test_a_whole_set_is_said_to_be_whole",
    "bench --json": "test_the_json_has_every_row",
    "bench --only! --json": "test_without_the_real_data_its_row_is_skipped_and_says_so",
    "bench --only": "test_chosen_rows_come_as_a_table",
    "bench --only --provider!": "test_a_gpu_that_is_not_there_is_said_in_one_line",
}
# make's targets, and where it says that they run. `make demo` is `viewsync demo` behind an installation.
MAKE = {
    "demo": ("Makefile", "-m viewsync demo"),
    "test": (".ci/run", "make test"),
    "lint": ("Makefile", "test: lint"),
    "gate": ("Makefile", "gate: $(VENV)/.test-ready"),
    "setup": ("Makefile", "setup: $(VENV)/.test-ready"),
}
TESTS = {path: path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py")}


def by_place(commands: list[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("command", commands, ids=lambda p: f"{p.where} {' '.join(p.words)}"[:90])


def test_commands_are_found_in_blocks_and_between_backticks() -> None:
    text = (
        "```sh\nA=b viewsync keys \\\n  list # all\n```\nsee `viewsync\nkeys make --agent …`\n"
        "```yaml\na: 1 # `make x`\n```\n```\na -> viewsync\n$ no\nmake y\n```\n"
    )
    assert list(pages.printed(text, "p")) == [
        pages.Printed("p:2", ("viewsync", "keys", "list")),
        pages.Printed("p:13", ("make", "y")),
        pages.Printed("p:5", ("viewsync", "keys", "make", "--agent"), inline=True, elided=True),
        pages.Printed("p:8", ("make", "x"), inline=True),
    ]
    assert len(PRINTED) > 25


@by_place([*OURS, *pages.in_the_help()])
def test_its_names_options_and_values_exist(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found, path, rest = pages.resolve(command.words)
    if not rest and (isinstance(found, click.Group) or command.inline):
        return  # named, not run: `viewsync keys`, `viewsync export`
    if command.elided:
        assert command.options <= {option for parameter in found.params for option in parameter.opts}
        return
    for parameter in found.params:
        if isinstance(parameter.type, click.Path):
            monkeypatch.setattr(parameter.type, "exists", False)
    try:
        found.make_context(" ".join(("viewsync", *path)), rest)
    except click.exceptions.Exit as done:  # --help, --version
        assert done.exit_code == 0


@by_place(OURS)
def test_a_test_runs_it(command: Any) -> None:
    found, path, _ = pages.resolve(command.words)
    if isinstance(found, click.Group):
        return
    fitting = [row for row in RUN_BY if row.split()[: len(path)] == [*path] and fits(row, command.options)]
    assert fitting, f"{command.where}: no test runs this form of it; write one, and name it in RUN_BY"


def fits(row: str, options: set[str]) -> bool:
    return {*re.findall(r"(\S+)!", row)} <= options <= set(row.replace("!", "").split())


@pytest.mark.parametrize(("row", "test"), RUN_BY.items())
def test_the_named_test_is_there_and_has_these_words(row: str, test: str) -> None:
    (path,) = (path for path, text in TESTS.items() if f"def {test}(" in text)
    # What runs commands as printed has their options from the page.
    assert path.name == "test_printed_runs.py" or all(
        word in TESTS[path] for word in row.replace("!", "").split()
    )


@by_place([p for p in PRINTED if p.words[0] != "viewsync"])
def test_other_programs_are_asked_for_what_is_there(command: Any) -> None:
    program, *rest = command.words
    if program == "make":
        targets = [word for word in rest if "=" not in word]
        assert targets and set(targets) <= set(MAKE), f"nothing runs make {targets}; name what does in MAKE"
        assert all(says in (ROOT / file).read_text("utf-8") for file, says in map(MAKE.get, targets))
        if targets == ["demo"]:
            environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
            would = subprocess.run(
                ["make", "-n", *rest], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
            )
            ran = shlex.split(would.stdout.splitlines()[-1])
            assert ran[ran.index("viewsync") :] == [*pages.demo_of(command).words]
    elif program == "docker":
        # tests/deploy holds the services; here only that they exist.
        services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
        given = {rest[at + 1] for at, word in enumerate(rest) if word == "--profile"}
        assert given and given <= {
            profile for service in services.values() for profile in service["profiles"]
        }
        verb, *names = [word for word in rest if not word.startswith("-") and word not in given][1:]
        assert rest[0] == "compose" and verb in ("up", "down", "logs") and set(names) <= set(services)
    elif "deploy/prepare" in rest:
        assert "test_prepare_makes_every_secret_once" in "".join(TESTS.values())
    elif "deploy/try-podman" in rest:
        script = (ROOT / "deploy/try-podman").read_text("utf-8")
        assert all(f'"{word}"' in script for word in rest if word.startswith("--"))
    elif program == "torchrun":
        from torch.distributed.run import get_args_parser

        given = get_args_parser().parse_args(rest)
        assert given.module and given.training_script == "viewsync"
        words, trained = given.training_script_args, dict(pages.commands())[("train",)]
        known = {option for parameter in trained.params for option in parameter.opts}
        assert words[0] == "train" and {word for word in words if word.startswith("--")} <= known
        assert "def test_two_processes_take_the_steps_of_one(" in "".join(TESTS.values())
    else:
        # Installing is what make did before this test; the names must be ours.
        assert [program, *rest[:1]] == ["pip", "install"], f"{command.where}: nothing tests {program!r}"
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = re.findall(r"\[([\w,-]+)\]", " ".join(rest))
        assert {extra for names in named for extra in names.split(",")} <= set(extras)
        assert "-c" not in rest or (ROOT / rest[rest.index("-c") + 1]).exists()


def test_every_command_is_printed_somewhere() -> None:
    leaves = {path for path, command in pages.commands() if not isinstance(command, click.Group)}
    assert sorted(leaves - {p.path for p in OURS}) == []
