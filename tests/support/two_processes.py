"""Run by torchrun in every process: a run from start to end, one that is stopped and goes on, one with a loss
that is not a number. Usage: two_processes.py CONFIG.json FOLDER
"""

import json
import sys
from pathlib import Path
from threading import Event

import torch

from viewsync.errors import UserError
from viewsync.training import train as training
from viewsync.training.config import TrainConfig
from viewsync.training.processes import Processes, StoppedElsewhere
from viewsync.training.train import Progress, train

config, out = TrainConfig(**json.loads(Path(sys.argv[1]).read_text())), Path(sys.argv[2])
rank = Processes().rank
losses: list[dict[str, float]] = []
train(config, out / "whole", lambda step: losses.append(step.losses), Event())

stop, real = Event(), training.batch_losses


def signalled(*args: object) -> dict[str, torch.Tensor]:
    if rank == 1 and args[5] == 3:  # only the second process is told to stop, in the fourth step
        stop.set()
    return real(*args)  # type: ignore[arg-type]


def poisoned(*args: object) -> dict[str, torch.Tensor]:
    found = real(*args)  # type: ignore[arg-type]
    return {**found, "marks": found["marks"] * float("nan")} if rank == 1 and args[5] == 4 else found


def silent(step: Progress) -> None:
    pass


training.batch_losses = signalled  # type: ignore[assignment]
train(config, out / "halves", silent, stop)
halfway = json.loads((out / "halves/last/state.json").read_text())["step"]
training.batch_losses = real
train(config, out / "halves", silent, Event())
training.batch_losses = poisoned  # type: ignore[assignment]
said, elsewhere = "", False
try:
    train(config, out / "poisoned", silent, Event())
except UserError as error:
    said, elsewhere = str(error), isinstance(error, StoppedElsewhere)
training.batch_losses = real


def full(*args: object) -> None:
    raise UserError("no space left")


training.save_checkpoint = full  # only the first process saves
unsaved = ""
try:
    train(config, out / "full", silent, Event())
except UserError as error:
    unsaved = str(error)


def told_to_stop(done: int, total: int) -> None:
    if rank == 1 and done == 3:  # while it looks at what a frozen encoder sees
        looking.set()


looking = Event()
frozen = {"encoder": "frozen", "start_from": out / "whole/best", "first_stage": 0.0}
train(config.model_copy(update=frozen), out / "looked", silent, looking, told_to_stop)
told = {"losses": losses, "halfway": halfway, "stopped": stop.is_set(), "said": said, "elsewhere": elsewhere}
told |= {"unsaved": unsaved, "looked": looking.is_set() and not (out / "looked/last").exists()}
(out / f"process-{rank}.json").write_text(json.dumps(told))
