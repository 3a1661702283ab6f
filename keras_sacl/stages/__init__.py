"""The stages of a run: each one function of (RunConfig, RunDir), callable from Python."""

from keras_sacl.stages.dry_run import dry_run
from keras_sacl.stages.evaluate import evaluate
from keras_sacl.stages.export import export
from keras_sacl.stages.finetune import finetune
from keras_sacl.stages.inputs import check_inputs
from keras_sacl.stages.pretrain import pretrain
from keras_sacl.stages.report import report
from keras_sacl.stages.run_dir import RunDir
from keras_sacl.stages.strategy import is_first, make_strategy

RUNNERS = {
    "pretrain": pretrain, "evaluate": evaluate, "finetune": finetune, "export": export,
    "report": report,
}  # fmt: skip

__all__ = [
    "RUNNERS",
    "RunDir",
    "check_inputs",
    "dry_run",
    "evaluate",
    "export",
    "finetune",
    "is_first",
    "make_strategy",
    "pretrain",
    "report",
]
