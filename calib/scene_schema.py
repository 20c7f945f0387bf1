"""The JSON Schema of `scene.yaml`, for editors and other programs: docs/scene.schema.json.

`python -m calib.scene_schema` prints it. A schema sees the shape of a file; what only numbers tell (that R is
a rotation, that heights ascend) is checked by `calib.scene`.
"""

import json
from typing import Any

from calib.scene import NAME_PATTERN, SCHEMA
from calib.scene_text import COMMENTS

_LARGEST_SIDE_PX = 32_767
_LARGEST_GRID = 100_000


def scene_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a scene file of this version."""
    document = _mapping(
        {
            "schema": {"const": SCHEMA},
            "name": {"type": "string", "pattern": f"^{NAME_PATTERN}$"},
            "cameras": {**_named(_camera()), "minProperties": 1},
            "ground": _mapping(
                {
                    "origin_m": _numbers(2),
                    "cell_m": {"type": "number", "exclusiveMinimum": 0},
                    "columns": _whole(_LARGEST_GRID),
                    "rows": _whole(_LARGEST_GRID),
                }
            ),
            "heights_m": {"type": "array", "items": {"type": "number"}, "minItems": 1},
            "zones": _maybe(_named(_mapping({"polygon_m": _corners()}))),
            "region": _maybe(_mapping({"polygon_m": _corners()})),
            "occluders": _maybe(_named(_named(_mapping({"polygon_px": _corners()})))),
        },
        optional=("zones", "region", "occluders"),
    )
    for place, text in COMMENTS.items():
        _at(document, place)["description"] = text
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"viewsync scene, version {SCHEMA}",
        "description": (
            "Calibrated cameras over one ground plane. World: metres, right-handed, z up, ground z = 0. "
            "Camera: OpenCV axes. Pixel centres at integer coordinates."
        ),
        **document,
    }


def schema_text() -> str:
    """The schema as the published file has it."""
    return json.dumps(scene_schema(), indent=2, ensure_ascii=False) + "\n"


def _mapping(keys: dict[str, Any], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    required = [key for key in keys if key not in optional]
    return {"type": "object", "properties": keys, "required": required, "additionalProperties": False}


def _named(value: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "propertyNames": {"pattern": f"^{NAME_PATTERN}$"},
        "additionalProperties": value,
    }


def _maybe(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


def _numbers(*shape: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "number"}
    for size in reversed(shape):
        schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size}
    return schema


def _corners() -> dict[str, Any]:
    return {"type": "array", "items": _numbers(2), "minItems": 3}


def _whole(largest: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": largest}


def _camera() -> dict[str, Any]:
    return _mapping(
        {
            "width_px": _whole(_LARGEST_SIDE_PX),
            "height_px": _whole(_LARGEST_SIDE_PX),
            "intrinsics_px": _numbers(3, 3),
            "distortion": _numbers(5),
            "rotation": _numbers(3, 3),
            "translation_m": _numbers(3),
        }
    )


def _at(schema: dict[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    for part in place:
        schema = schema["additionalProperties"] if part == "*" else schema["properties"][part]
    return schema


if __name__ == "__main__":
    print(schema_text(), end="")
