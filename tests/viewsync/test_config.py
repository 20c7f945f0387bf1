from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, field_validator

from viewsync.config import Flag, Section, load_config
from viewsync.errors import ConfigError


class Camera(Section):
    url: str
    rate_hz: float = 2.0


class Output(Section):
    port: int = Field(default=5556, ge=1, le=65535)
    enabled: bool = True


class FileSource(Section):
    kind: Literal["file"] = "file"
    path: Path = Path("clip.mp4")


class LiveSource(Section):
    kind: Literal["live"] = "live"
    timeout_s: float = 5.0


class Program(Section):
    name: str = "default"
    views: tuple[str, ...] = ()
    output: Output = Output()
    limit: Output | None = None
    cameras: tuple[Camera, ...] = ()
    by_view: dict[str, Camera] = Field(default_factory=dict)
    source: Annotated[FileSource | LiveSource, Field(discriminator="kind")] = FileSource()

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if name == "root":
            raise ValueError("root is taken; choose another name")
        return name


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "program.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path: Path | None, *overrides: str, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(Program, path, overrides, environ or {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_later_sources_win(write) -> None:
    path = write("output: {port: 1}\nname: file")
    assert load_config(Program, None).output.port == 5556
    assert load_config(Program, path).output.port == 1
    environ = {"VIEWSYNC_OUTPUT__PORT": "2", "VIEWSYNC_NAME": "variable"}
    from_environment = load_config(Program, path, (), environ)
    assert (from_environment.output.port, from_environment.name) == (2, "variable")
    assert load_config(Program, path, ["output.port=3"], environ).output.port == 3


def test_overrides_reach_lists_mappings_and_missing_sections(write) -> None:
    path = write("cameras: [{url: a}, {url: b}]\nby_view: {North: {url: n}}")
    config = load_config(
        Program,
        path,
        ["cameras.1.rate_hz=0.5", "limit.port=7", "views=[north, south]", "name=123", "output.enabled=false"],
        {"VIEWSYNC_BY_VIEW__NORTH__URL": "changed"},
    )
    assert [camera.rate_hz for camera in config.cameras] == [2.0, 0.5]
    assert config.limit == Output(port=7)
    assert config.views == ("north", "south")
    assert config.name == "123"
    assert not config.output.enabled
    assert config.by_view["North"].url == "changed"


def test_an_override_takes_null_and_keeps_equals_signs(write) -> None:
    config = load_config(Program, write("limit: {port: 7}"), ["limit=null", "name=a=b"])
    assert config.limit is None
    assert config.name == "a=b"


def test_variables_expand_in_strings_only_after_parsing(write) -> None:
    path = write('name: "${NAME:-none}"\noutput: {port: "${PORT:-81}"}\nviews: ["${A}-x", "$${A}"]')
    config = load_config(Program, path, (), {"A": "a: [b", "PORT": "82"})
    assert (config.name, config.output.port, config.views) == ("none", 82, ("a: [b-x", "${A}"))
    assert load_config(Program, path, (), {"A": "", "NAME": ""}).name == "none"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("output: {prot: 1}", ["program.yaml", "'output.prot'", "did you mean 'port'"]),
        ("by_view: {north: {url: a, rate: 1}}", ["'by_view.north.rate'", "did you mean 'rate_hz'"]),
        ("cameras: [{url: a, rats_hz: 1}]", ["'cameras.0.rats_hz'", "did you mean 'rate_hz'"]),
        ("limit: {prot: 1}", ["prot", "did you mean 'port'"]),
        ("source: {kind: live, timeout: 1}", ["timeout", "did you mean 'timeout_s'"]),
        ("zzz: 1", ["'zzz'", "valid here: by_view, cameras, limit, name, output, source, views"]),
        ("cameras: [{rate_hz: 1}]", ["'cameras.0.url' is missing"]),
        ("output: {port: 70000}", ["output.port", "65535", "70000"]),
        ("cameras: [{url: a, rate_hz: .nan}]", ["cameras.0.rate_hz", "finite"]),
        ("name: root", ["name: root is taken; choose another name"]),
        ("output: [1]", ["output", "a list"]),
        ("output: {port: yes}", ["output", "port is true; give a number"]),
        ("views: north", ["views", "give a list, such as [one, two] (got 'north')"]),
        ("name: no", ["name", "need quotes around them (got False)"]),
        ("output: tcp://here:1", ["'output' has keys below it (", "port", "got 'tcp://here:1'"]),
        ("name: a\nname: b", ["program.yaml:2:1", "'name' appears twice"]),
        ("name: [a", ["program.yaml:1", "not valid YAML"]),
        ("- a", ["expected 'key: value' lines"]),
        ("name: ${UNSET_HERE}", ["name", "UNSET_HERE is not set", "${UNSET_HERE:-default}"]),
        ("name: ${bad name}", ["name", "${NAME:-default}"]),
    ],
)
def test_a_mistake_in_the_file_says_what_where_and_what_to_do(write, text: str, parts: list[str]) -> None:
    message = refusal(write(text))
    for part in parts:
        assert part in message


def test_a_mistake_elsewhere_names_its_place(write, tmp_path: Path) -> None:
    path = write("cameras: [{url: a}]")
    unknown = refusal(path, "output.prot=1")
    assert unknown.startswith("--set output.prot: unknown key 'output.prot'; did you mean 'port'")
    assert refusal(path, "output.port=x") == "--set output.port: give a whole number (got 'x')"
    with pytest.raises(ConfigError, match=r"^--port: give a whole number"):
        load_config(Program, path, flags=[Flag("--port", "output.port", "x")])
    with pytest.raises(ConfigError, match=r"'cameras\.0\.url' is missing; give --camera$"):
        load_config(Program, write("cameras: [{}]"), flags=[Flag("--camera", "cameras.0.url", None)])
    variable = refusal(path, environ={"VIEWSYNC_OUTPUT__PROT": "1"})
    assert variable.startswith("environment variable VIEWSYNC_OUTPUT__PROT")
    assert "expected key.path=value" in refusal(path, "output.port")
    assert "is a list of 1" in refusal(path, "cameras.4.url=x")
    assert str(tmp_path / "missing.yaml") in refusal(tmp_path / "missing.yaml")


def test_variables_of_others_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"VIEWSYNC_DATA": "/data", "VIEWSYNC_PORT_5555_TCP": "x", "OTHER__KEY": "1"}
    assert load_config(Program, None, (), environ) == Program()
    assert not caplog.records
    load_config(Program, None, (), {"VIEWSYNC_VIEW": "[north]"})
    assert "did you mean VIEWSYNC_VIEWS" in caplog.text


def test_a_password_is_not_repeated_in_the_refusal(write) -> None:
    message = refusal(write("output: {port: 'rtsp://u:hunter2@cam/'}"))
    assert "hunter2" not in message
    assert "***" in message


def test_the_folder_of_real_data_is_not_a_setting() -> None:
    class Training(Section):
        data: Path = Path("crowds")

    assert load_config(Training, None, (), {"VIEWSYNC_DATA": "/real"}).data == Path("crowds")
    assert load_config(Training, None, ("data=mine",), {"VIEWSYNC_DATA": "/real"}).data == Path("mine")
